"""Who may call a whole platform, as its callers and its operator see it: real processes, real clients, a real issuer.

Keys are made by the command line, tenants, issuers and rules are applied from files, and every door is tried.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cli.test_commands import hyperion
from tests.e2e.access_doors import (
    LIMITED,
    OK,
    REFUSED,
    SUMS,
    UNKNOWN,
    all_doors,
    ask_grpc,
    bearer,
    every,
    grpc_door,
    json_door,
)
from tests.e2e.admin_client import wait_until
from tests.e2e.served import ROOT, Served
from tests.gateway.test_identity import forge
from tests.oidc_issuer import OidcIssuer, make_token

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MODELS = Path(__file__).parent / "models"
WRONG = "hyp_" + "w" * 43
ENDPOINT = """\
kind: Endpoint
metadata: {{name: guarded}}
spec: {{model: sums@1, {rules}}}
"""


class Operated(Served):
    """A platform that somebody drives from the command line."""

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        where = {"HYPERION_ADMIN_URL": f"http://127.0.0.1:{self.admin_port}", "HYPERION_HOME": str(self.home)}
        return hyperion(*arguments, cwd=self.home.parent, **where, **environ)

    def do(self, *arguments: str) -> str:
        """What a command prints, which succeeds."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def apply(self, text: str) -> None:
        (self.home.parent / "applied.yaml").write_text(text)
        self.do("apply", "-f", "applied.yaml")

    def make_key(self, tenant: str = "acme", *more: str) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(self.do("key", "create", "--tenant", tenant, *more, "--json"))
        return made

    def all_pids(self) -> dict[str, list[int]]:
        return {role: self.pids(role) for role in ("supervisor", "control", "gateway", "runner")}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    home = tmp_path_factory.mktemp("access") / "home"
    options = ("--require-auth", "--access-log", "--log-format", "json")
    models = (MODELS / "sums", MODELS / "countdown")
    with Operated(home, *models, options=options, program="tests.e2e.hasty_serve") as served:
        yield served


@pytest.fixture
def issuer(platform: Operated) -> Iterator[OidcIssuer]:
    """An issuer of tokens whom the platform knows by a resource that was applied."""
    with OidcIssuer() as oidc:
        spec = {"issuer": oidc.url, "audience": "hyperion", "tenant_claim": "tenant", "refresh_s": 3600}
        platform.apply(json.dumps({"kind": "Issuer", "metadata": {"name": "corp"}, "spec": spec}))
        wait_until(lambda: json_door(platform, bearer(oidc.token())) == OK)
        yield oidc
        platform.do("delete", "issuer", "corp")


# --- who is asked for credentials at all ---


@pytest.mark.parametrize(
    ("options", "said", "banner"),
    [
        (("--host", "0.0.0.0"), UNKNOWN, "--open lets anybody in"),
        (("--host", "0.0.0.0", "--open"), OK, "--require-auth asks for keys"),
        (("--require-auth",), UNKNOWN, "--open lets anybody in"),
        ((), OK, ""),
    ],
    ids=["beyond the loopback", "beyond it and open", "asked for", "on the loopback"],
)
def test_callers_without_credentials_are_refused_beyond_the_loopback_unless_somebody_says_otherwise(
    tmp_path: Path, options: tuple[str, ...], said: str, banner: str
) -> None:
    with Operated(tmp_path / "home", MODELS / "sums", options=options) as served:
        served.wait_for_line("Stop")
        assert json_door(served, {}) == grpc_door(served, {}) == said
        text = served.log.read_text()
        assert [banner in line for line in text.splitlines() if line.startswith("  Callers")] == [True] * bool(banner)
        if said == UNKNOWN:
            assert paste(text) == {"sum", "difference"}


def paste(banner: str) -> set[str]:
    """The outputs of the lines below "Try it", run as they stand."""
    lines = banner.splitlines()
    at = lines.index("Try it")
    start = f'set -e; hyperion() {{ "{sys.executable}" -m hyperion "$@"; }}'
    script = "\n".join((start, *lines[at + 1 : at + 3]))
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return {output["name"] for output in json.loads(done.stdout)["outputs"]}


def test_only_signs_of_life_are_open_where_credentials_are_needed(platform: Operated) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/ping", "/healthz", "/livez", "/readyz", "/"):
        assert platform.get(path).status == 200, path
    assert platform.get("/v2/models/sums/ready").status == 200
    for path in ("/v2", "/v2/models", "/v2/models/sums", "/v1/models", "/metrics", "/v2/jobs/x"):
        assert platform.get(path).status == 401, path
    for path in ("/v2/repository/index", "/v2/repository/models/sums/unload", "/invocations"):
        assert platform.post(path, {}).status in (401, 404), path
    assert ask_grpc(platform, "grpc.health.v1.Health/Check", b"", {}) == OK
    assert ask_grpc(platform, "inference.GRPCInferenceService/ServerReady", b"", {}) == OK
    for method in ("ServerMetadata", "RepositoryIndex"):
        assert ask_grpc(platform, f"inference.GRPCInferenceService/{method}", b"", {}) == UNKNOWN, method
    assert platform.get("/v2/health/ready").status == 200


# --- keys ---


def test_a_key_opens_every_door_from_its_making_to_its_end(platform: Operated) -> None:
    assert all_doors(platform, {}) == all_doors(platform, bearer(WRONG)) == every(UNKNOWN)
    key = platform.make_key()
    assert all_doors(platform, bearer(key["key"])) == every(OK)
    successor = json.loads(platform.do("key", "rotate", key["id"], "--overlap", "1h", "--json"))
    assert json_door(platform, bearer(key["key"])) == OK
    assert all_doors(platform, bearer(successor["key"])) == every(OK)
    platform.do("key", "revoke", key["id"], "--reason", "test")
    assert all_doors(platform, bearer(key["key"])) == every(UNKNOWN)
    assert all_doors(platform, bearer(successor["key"])) == every(OK)
    reader = platform.make_key("acme", "--scope", "read")
    assert all_doors(platform, bearer(reader["key"])) == every(REFUSED)


def test_the_commands_that_call_models_show_a_key(platform: Operated) -> None:
    key = platform.make_key()["key"]
    request = ("predict", "sums", "--json", '{"a": [[1, 2]], "b": [[3, 4]]}', "--url", platform.url)
    assert "needs credentials" in platform.run(*request).stderr
    assert platform.run(*request, HYPERION_API_KEY=key).returncode == 0
    assert platform.run(*request, "--key", key).returncode == 0
    load = ("bench", f"{platform.url}/v2/models/sums", "--rate", "20", "--seconds", "0.5", "--warm-up", "0", "--json")
    assert set(json.loads(platform.run(*load, HYPERION_API_KEY=key).stdout)["statuses"]) == {"200"}


# --- tokens ---


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_token_of_an_applied_issuer_opens_every_door(platform: Operated, issuer: OidcIssuer, algorithm: str) -> None:
    assert all_doors(platform, bearer(issuer.token(algorithm))) == every(OK)


def test_no_forged_token_comes_in_over_http_or_grpc_and_every_process_lives_on(
    platform: Operated, issuer: OidcIssuer
) -> None:
    before, forged = platform.all_pids(), forge(issuer)
    with grpc.insecure_channel(platform.grpc) as channel:
        said = {
            fault: (json_door(platform, bearer(token)), grpc_door(platform, bearer(token), channel))
            for fault, token in forged.items()
        }
        assert {fault: found for fault, found in said.items() if found != (UNKNOWN, UNKNOWN)} == {}
        assert grpc_door(platform, bearer(issuer.token()), channel) == OK
    assert platform.all_pids() == before
    log = platform.log.read_text()
    assert [fault for fault, token in forged.items() if len(token) > 40 and token in log] == []


def test_a_rotated_key_counts_within_seconds_and_an_issuer_that_is_gone_locks_nobody_out(
    platform: Operated, issuer: OidcIssuer
) -> None:
    old = issuer.token()
    issuer.rotate()
    wait_until(lambda: json_door(platform, bearer(issuer.token("ES256"))) == OK, 30)
    assert json_door(platform, bearer(issuer.token("RS256"))) == OK
    issuer.stop()
    try:
        assert json_door(platform, bearer(old)) == json_door(platform, bearer(issuer.token())) == OK
        assert json_door(platform, bearer(make_token(issuer.key(), issuer.claims(tenant=None)))) == UNKNOWN
    finally:
        issuer.start()


# --- rules of endpoints and tenants ---


def index_over_grpc(platform: Operated, headers: dict[str, str]) -> bytes:
    with grpc.insecure_channel(platform.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/RepositoryIndex")
        index: bytes = call(b"", timeout=20, metadata=tuple(headers.items()))
    return index


@pytest.fixture(scope="module")
def guarded(platform: Operated) -> Callable[[str], None]:
    """Applies the endpoint `guarded` with these rules. That it serves is waited for once."""
    platform.do("model", "push", "sums", str(MODELS / "sums"), "--version", "1")

    def apply(rules: str) -> None:
        platform.apply(ENDPOINT.format(rules=rules))

    apply("access: {anonymous: true}")
    wait_until(lambda: json_door(platform, {}, "guarded") == OK)
    return apply


def test_rules_of_a_live_endpoint_hold_as_soon_as_they_are_applied(
    platform: Operated, guarded: Callable[[str], None]
) -> None:
    acme, other = (bearer(platform.make_key(tenant)["key"]) for tenant in ("acme", "other"))
    pids = platform.all_pids()

    def said() -> tuple[str, str, str]:
        return tuple(json_door(platform, who, "guarded") for who in ({}, acme, other))  # type: ignore[return-value]

    guarded("access: {anonymous: true}")
    assert said() == (OK, OK, OK)
    guarded("access: {tenants: [acme]}")
    wait_until(lambda: said() == (UNKNOWN, OK, REFUSED))
    assert platform.get("/v2/models/guarded", other).status == 403
    for who, seen in ((acme, True), (other, False)):
        assert (b'"guarded"' in platform.get("/v2/models", who).body) is seen
        assert (b'"guarded"' in platform.post("/v2/repository/index", {}, who).body) is seen
        assert (b"guarded" in index_over_grpc(platform, who)) is seen
    guarded("access: {tenants: [acme]}, limits: {per_tenant: {requests_per_second: 0.001, burst: 2}}")
    wait_until(lambda: said()[1] == LIMITED)
    answer = platform.post("/v2/models/guarded/infer", SUMS, acme)
    assert (answer.status, int(answer.headers["retry-after"]) > 0) == (429, True)
    assert "ratelimit" in answer.headers
    guarded("access: {tenants: [acme, other]}")
    wait_until(lambda: said() == (UNKNOWN, OK, OK))
    assert platform.all_pids() == pids


def test_a_tenants_limits_hold_for_all_its_keys_from_when_they_are_applied(
    platform: Operated, guarded: Callable[[str], None]
) -> None:
    guarded("access: {}")
    first, second = (bearer(platform.make_key("small")["key"]) for _ in range(2))
    wait_until(lambda: json_door(platform, first, "guarded") == OK)
    platform.apply("kind: Tenant\nmetadata: {name: small}\nspec: {limits: {requests_per_second: 0.001, burst: 3}}\n")
    wait_until(lambda: json_door(platform, first, "guarded") == LIMITED)
    assert json_door(platform, second, "guarded") == LIMITED
    assert grpc_door(platform, second) == LIMITED


def test_the_platforms_own_calls_need_no_key(platform: Operated, guarded: Callable[[str], None]) -> None:
    """Smoke requests, fallbacks and the counts behind a rollout go on where callers are asked for credentials."""
    second = platform.home.parent / "second"
    shutil.copytree(MODELS / "sums", second)
    (second / "model.py").write_text((second / "model.py").read_text() + "# the second\n")
    platform.do("model", "push", "sums", str(second), "--version", "2")
    rules = "access: {}, fallback: [{model: sums@1}], rollout: {strategy: blue-green, smoke: {count: 3}}"
    platform.apply(ENDPOINT.format(rules=rules).replace("sums@1,", "sums@2,", 1))
    acme = bearer(platform.make_key()["key"])

    def version() -> str | None:
        return platform.post("/v2/models/guarded/infer", SUMS, acme).headers.get("x-hyperion-model-version")

    wait_until(lambda: version() == "2")
    shown = json.loads(platform.do("rollout", "status", "guarded", "--json"))
    assert (shown["state"] in ("blue-green", "promoted"), shown["to"]) == (True, "2")
    counted = platform.get("/metrics", port=platform.admin_port).body.decode()
    assert 'hyperion_requests_total{endpoint="guarded",version="2"' in counted


# --- what is left behind ---


def test_no_credential_is_in_any_file_or_log_line(platform: Operated, issuer: OidcIssuer) -> None:
    key = platform.make_key("acme")
    successor = json.loads(platform.do("key", "rotate", key["id"], "--overlap", "1m", "--json"))
    secrets = [key["key"], successor["key"], WRONG, issuer.token(), issuer.token("ES256", tenant="other")]
    secrets += [token for token in forge(issuer).values() if len(token) > 40]
    for secret in secrets:
        all_doors(platform, bearer(secret)) if secret in secrets[:4] else json_door(platform, bearer(secret))
    later = {**bearer(key["key"]), "prefer": "respond-async", "idempotency-key": "once"}
    job = platform.post("/v2/models/sums/infer", SUMS, later)
    assert job.status == 202
    path = f"/v2/jobs/{job.json()['id']}"
    wait_until(lambda: platform.get(path, bearer(key["key"])).json()["state"] == "done")
    assert platform.get(path, bearer(platform.make_key("other")["key"])).status == 404
    last = {**bearer(successor["key"]), "x-request-id": "the-last-of-all"}
    platform.post("/v2/models/sums/infer", SUMS, last)
    wait_until(lambda: "the-last-of-all" in platform.log.read_text())
    files = [path for path in platform.home.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.name == "hyperion.db" for path in files)
    for path in (*files, platform.log):
        data = path.read_bytes()
        assert [secret for secret in secrets if secret.encode() in data] == [], path.name
