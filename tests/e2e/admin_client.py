"""One kept connection to the management API of a served platform: a command line takes longer to start than most of
what is asked here. Answers are data; what is refused raises `Refused` with the API's own words."""

import http.client
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import msgspec

from hyperion.store.versions.push import Details, prepare_push
from hyperion.store.versions.signing import SigningKey, sign_manifest
from tests.e2e.served import Served

KEPT_S = 2.0  # the server closes what is idle for longer than some seconds
ENDED = frozenset(("promoted", "halted", "aborted"))


class Refused(Exception):
    """The API's no: its status and what it says."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status} {detail}")
        self.status, self.detail = status, detail


class Api:
    """The management API as a caller on this machine sees it."""

    def __init__(self, served: Served) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", served.admin_port, timeout=60)
        self._used_s = 0.0
        token = (served.home / "admin-token").read_text().strip()
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON (None where it has no body). Raises `Refused`."""
        return self._send(method, path, None if body is None else json.dumps(body).encode(), {})

    def _send(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> Any:
        if time.monotonic() - self._used_s > KEPT_S:
            self._connection.close()
        try:
            self._connection.request(method, f"/api/v1/{path}", content, {**self._headers, **headers})
            answer = self._connection.getresponse()
            data = answer.read()
            self._used_s = time.monotonic()
        except (OSError, http.client.HTTPException):
            self._connection.close()  # control was restarted: the next request connects anew
            raise
        if answer.status >= 300:
            raise Refused(answer.status, data.decode(errors="replace"))
        return json.loads(data) if data else None

    def apply(self, name: str, model: str, **spec: Any) -> str:
        """Apply one endpoint; what that did."""
        changes = self.ask("POST", "endpoints", resource(name, model, **spec))["changes"]
        return str(changes[0]["action"])

    def deploy(self, name: str, model: str, strategy: str | None = None) -> Any:
        """Start a rollout."""
        return self.ask("POST", f"endpoints/{name}/deploy", {"model": model, "strategy": strategy})

    def push(self, model: str, version: str, path: Path, alias: str = "", sign_key: str = "") -> Any:
        """Register what lies there, as `hyperion model push` does; the answer has the version's digest."""
        pushed = prepare_push(model, version, path, Details(git_commit="c0ffee" + version))
        manifest = pushed.manifest
        signature = sign_manifest(manifest, SigningKey(sign_key)) if sign_key else ""
        for entry, source in pushed.sources:
            self.upload(entry.sha256, source.read_bytes())
        body = {"manifest": msgspec.to_builtins(manifest), "signature": signature, "alias": alias}
        return self.ask("POST", f"registry/models/{model}/versions", body)

    def upload(self, sha256: str, data: bytes) -> None:
        """One blob."""
        self._send("PUT", f"blobs/sha256:{sha256}", data, {"content-type": "application/octet-stream"})

    def command(self, name: str, verb: str) -> Any:
        """Give the rollout a command."""
        return self.ask("POST", f"rollouts/{name}/{verb}", {"reason": "drill"})

    def status(self, name: str) -> Any:
        """How far the rollout is."""
        return self.ask("GET", f"rollouts/{name}")

    def wait(self, name: str, done: Callable[[Any], bool], timeout_s: float = 60.0) -> Any:
        """The status once it is as wanted. Raises TimeoutError with the last one."""
        deadline = time.monotonic() + timeout_s
        while True:
            status = self.status(name)
            if done(status):
                return status
            if time.monotonic() > deadline:
                raise TimeoutError(f"not so after {timeout_s:.0f} s: {json.dumps(status)[:2000]}")
            time.sleep(0.03)

    def wait_end(self, name: str, to: str, timeout_s: float = 60.0) -> Any:
        """The status once the rollout to this version has ended."""
        return self.wait(name, lambda status: status["state"] in ENDED and status["to"] == to, timeout_s)

    def entries(self, subject: str) -> list[Any]:
        """The ledger's entries about a subject, oldest first."""
        items = self.ask("GET", f"ledger/entries?subject={subject}&limit=1000")["items"]
        return sorted(items, key=lambda entry: int(entry["seq"]))


def resource(name: str, model: str, **spec: Any) -> dict[str, Any]:
    """An Endpoint."""
    return {
        "apiVersion": "hyperion/v1",
        "kind": "Endpoint",
        "metadata": {"name": name},
        "spec": {"model": model, **spec},
    }


def wait_until(done: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Return once it is so."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
