"""Keys and issuers on a whole platform: what control answers is true at every gateway at once, and outlives control."""

import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.control.test_life import wait_until
from tests.e2e.served import Served
from tests.oidc_issuer import OidcIssuer

pytestmark = pytest.mark.timeout(180)

SUMS = Path(__file__).parents[1] / "e2e" / "models" / "sums"
ROWS = {"shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
BODY = json.dumps({"inputs": [{"name": name, **ROWS} for name in ("a", "b")]}).encode()
OPTIONS = ("--require-auth", "--gateway-workers", "2")
TRIES = 16  # connections; the kernel gives each to one of the two gateways


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("access") / "home"
    with Served(home, SUMS, options=OPTIONS, program="tests.e2e.hasty_serve") as served:
        yield served


def infer(served: Served, token: str) -> int:
    """The status, over a connection of its own."""
    url = f"{served.url}/v2/models/sums/infer"
    request = urllib.request.Request(url, BODY, {"authorization": f"Bearer {token}", "connection": "close"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def everywhere(served: Served, token: str) -> set[int]:
    return {infer(served, token) for _ in range(TRIES)}


def ask(served: Served, path: str, body: Any = None, method: str = "") -> Any:
    """The management API's answer, as the home's admin."""
    token = (served.home / "admin-token").read_text().strip()
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    url = f"http://127.0.0.1:{served.admin_port}/api/v1/{path}"
    request = urllib.request.Request(url, data, headers, method=method or ("POST" if data else "GET"))
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


def make_key(served: Served) -> dict[str, Any]:
    made: dict[str, Any] = ask(served, "keys", {"tenant": "acme"})
    return made


def test_every_gateway_knows_of_a_key_when_control_has_answered(served: Served) -> None:
    for _ in range(3):
        key = make_key(served)
        assert everywhere(served, key["key"]) == {200}
        successor = ask(served, f"keys/{key['id']}/rotate", {"overlap_s": 3600})
        assert everywhere(served, key["key"]) == everywhere(served, successor["key"]) == {200}
        ask(served, f"keys/{key['id']}", method="DELETE")
        assert everywhere(served, key["key"]) == {401}
        final = ask(served, f"keys/{successor['id']}/rotate", {"overlap_s": 0})
        assert everywhere(served, successor["key"]) == {401}
        assert everywhere(served, final["key"]) == {200}


def test_secrets_are_nowhere_on_the_disk_and_who_may_call_is_for_this_user_alone(served: Served) -> None:
    key = make_key(served)
    assert infer(served, key["key"]) == 200
    kept = [served.home / "snapshot.json", served.home / "directory.json", served.home / "run" / "published.json"]
    wait_until(lambda: all(key["id"] in path.read_text() for path in kept), "the key is not written down everywhere")
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    files = [path for path in served.home.rglob("*") if path.is_file()]
    assert [path for path in files if key["key"].encode() in path.read_bytes()] == []


def test_a_token_counts_as_soon_as_its_issuer_is_known_and_its_new_key_soon_after_it_is_met(served: Served) -> None:
    with OidcIssuer() as oidc:
        spec = {"issuer": oidc.url, "audience": "hyperion", "refresh_s": 3600}
        ask(served, "issuers", {"kind": "Issuer", "metadata": {"name": "corp"}, "spec": spec})
        oidc.wait_asked(1)
        wait_until(lambda: everywhere(served, oidc.token()) == {200}, "its keys did not reach the gateways")
        assert everywhere(served, oidc.token("ES256")) == {200}
        oidc.rotate()
        said: list[int] = []

        def count() -> bool:
            said.append(infer(served, oidc.token("ES256")))
            return said[-1] == 200

        wait_until(count, "nobody asked for the new keys")
        assert len(said) > 10
        assert oidc.asked() in (2, 3)  # and not once for each of those tokens; for the one that met the answer, perhaps
        ask(served, "issuers/corp", method="DELETE")
        assert everywhere(served, oidc.token()) == {401}


def test_callers_do_not_notice_that_control_dies_and_the_issuer_with_it(served: Served) -> None:
    key = make_key(served)["key"]
    with OidcIssuer() as oidc:
        spec = {"issuer": oidc.url, "audience": "hyperion"}
        ask(served, "issuers", {"kind": "Issuer", "metadata": {"name": "corp"}, "spec": spec})
        token = oidc.token()
        wait_until(lambda: everywhere(served, token) == {200}, "its keys did not reach the gateways")
    seen: set[int] = set()
    enough = threading.Event()

    def call() -> None:
        while not enough.is_set():
            seen.update((infer(served, key), infer(served, token)))

    caller = threading.Thread(target=call)
    caller.start()
    try:
        (control,) = served.pids("control")
        os.kill(control, signal.SIGKILL)
        wait_until(lambda: served.pids("control") not in ([], [control]), "control was not started again")

        def knows() -> bool:
            try:
                status = ask(served, "issuers/corp")["status"]
            except OSError:
                return False
            return status["problem"] != "" and len(status["keys"]) == 2

        wait_until(knows, "the new control does not have the keys of the issuer that is gone")
    finally:
        enough.set()
        caller.join(30)
    assert seen == {200}
    assert everywhere(served, key) == everywhere(served, token) == {200}
    new = make_key(served)["key"]
    assert everywhere(served, new) == {200}


def test_a_home_that_is_served_again_knows_everybody_from_the_first_moment(tmp_path: Path) -> None:
    with Served(tmp_path / "home", SUMS, options=OPTIONS) as served:
        key = make_key(served)["key"]
        kept = served.home / "directory.json"
        wait_until(lambda: kept.exists() and "acme" in kept.read_text(), "who may call is not written down")
    with Served(tmp_path / "home", SUMS, options=OPTIONS) as served:
        seen = set[int]()
        while (now := everywhere(served, key)) != {200}:  # the other gateway may still be starting
            seen |= now
        assert seen <= {200, 503}, "a key that counts is never refused"
        assert infer(served, "hyp_" + "A" * 43) == 401
