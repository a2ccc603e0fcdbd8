"""A management API over a real socket, on a real store, with a loop that decides with the real policy but runs nothing.

What gateways and runners would report is `observed`: every candidate is ready at once, unless a test says otherwise.
"""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
import uvicorn

from hyperion.api.app import make_app
from hyperion.api.serve import EmbeddedServer
from hyperion.api.token import ensure_token
from hyperion.control.desk.desk import Desk
from hyperion.control.release.aim import aim
from hyperion.control.release.book import Book, Change, Desired, Event, Page
from hyperion.policy.release.rollout import Command, Observed, decide
from hyperion.schema.config import ControlConfig
from hyperion.schema.release import TrackCounts
from hyperion.schema.snapshot import Snapshot
from hyperion.store import registry
from hyperion.store.blobs.directory import LocalBlobs
from hyperion.store.database import open_home
from hyperion.store.versions.push import Details, prepare_push, put_files
from hyperion.store.versions.signing import Trust
from tests.e2e.served import free_ports

SUMS = Path(__file__).parents[1] / "e2e" / "models" / "sums"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Loop(threading.Thread):
    """Looks at the store whenever it is woken, decides for every endpoint, and saves."""

    def __init__(self, book: Book) -> None:
        super().__init__(daemon=True)
        self.book = book
        self.observed = Observed(candidate="ready")
        self.acknowledges = True
        self.woken = threading.Event()
        self.ending = False
        self._ids = iter(range(1, 1_000))

    def run(self) -> None:
        while not self.ending:
            self.woken.wait(0.5)
            self.woken.clear()
            page = self.book.read()
            changes = [change for desired in page.desired if (change := self._look(page, desired)) is not None]
            if changes:
                self.book.save(changes, None)

    def _look(self, page: Page, desired: Desired) -> Change | None:
        name, now = desired.endpoint.metadata.name, time.time()
        if desired.deleting:
            return Change(name, purge=True)
        commands = page.commands.get(name, ())
        forced = next((row for row in commands if row.verb == "restart"), None)
        old = page.records.get(name)
        record, events = aim(desired, old, now, lambda: f"r{next(self._ids)}", forced)
        if record is None:
            return None
        done: list[tuple[int, str]] = []
        spec, state = desired.endpoint.spec, record.state
        for row in (*commands, None):
            if row is not None and row.verb == "restart":
                done.append((row.id, "a new rollout has begun"))
                continue
            command = None if row is None else Command(row.verb, row.actor, row.reason)
            observed = msgspec.structs.replace(self.observed, acknowledged_epoch=state.epoch)
            decision = decide(spec.rollout, spec.slo, state, observed, now, command)
            state = decision.state
            events = (*events, *(Event(kind, name, "control", detail=detail) for kind, detail in decision.events))
            if row is not None:
                done.append((row.id, decision.reason))
        if old is not None and not events and not done:
            return None
        return Change(name, msgspec.structs.replace(record, state=state), events, tuple(done))


class Platform:
    """Entered, it answers at `url`; `token` is the home's."""

    config: ControlConfig
    snapshot_now = Snapshot(0, (), ())
    rejected_now: Mapping[str, str] = {}

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        (port,) = free_ports(1)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.token = ensure_token(home)
        self.config = ControlConfig(run_dir=str(home), home=str(home), admin_port=port)
        self.database = open_home(home)
        self.blobs = LocalBlobs(home / "blobs")
        self.loop = Loop(Book(self.database, self.blobs, home / "artifacts", Trust()))
        self.counted: tuple[TrackCounts, ...] = ()
        self.desk = Desk(self.database, self.blobs, self.loop.woken.set, lambda _endpoint: self.counted)
        app = make_app(self, self.token, ("localhost",))
        settings = uvicorn.Config(app, port=port, lifespan="off", log_level="warning", timeout_graceful_shutdown=1)
        self._server = EmbeddedServer(settings)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve()), daemon=True)

    def __enter__(self) -> Self:
        self.loop.start()
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self.loop.ending = True
        self.loop.woken.set()
        self.loop.join(10)
        self.database.close()

    async def load(self, model: str, parameters: dict[str, Any]) -> None:
        raise NotImplementedError

    async def unload(self, model: str) -> None:
        raise NotImplementedError

    def snapshot(self) -> Snapshot:
        return self.snapshot_now

    def children(self) -> tuple[Any, ...]:
        return ()

    def workers(self) -> dict[int, int]:
        return {}

    def gauges(self) -> dict[str, dict[tuple[str, ...], float]]:
        return {}

    async def follow(self, endpoint: str) -> None:
        return  # there are no gateways here

    def member_reasons(self) -> dict[str, str]:
        return {}

    def rejected(self) -> dict[str, str]:
        return dict(self.rejected_now)

    async def follow_writes(self) -> None:
        return

    def is_ready(self) -> bool:
        return True

    def ask(self, path: str, body: Any = None, method: str = "", token: str | None = None, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        given = {"authorization": f"Bearer {self.token if token is None else token}"}
        given |= {} if isinstance(body, bytes) else {"content-type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            f"{self.url}/api/v1/{path}", data, given, method=method or ("POST" if data is not None else "GET")
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, dict(error.headers), error.read())

    def push(self, model: str, version: str, metric: float = 0.9) -> None:
        """Register a version behind the API's back; versions differ in a file."""
        folder = self.home / "work" / f"{model}-{version}"
        folder.mkdir(parents=True)
        (folder / "model.py").write_bytes((SUMS / "model.py").read_bytes())
        (folder / "weights.txt").write_text(f"{model} {version}")
        details = Details(metrics={"auc": metric}, git_commit=f"c0ffee{version}", data_version=f"d{version}")
        pushed = prepare_push(model, version, folder, details)
        put_files(self.blobs, pushed.sources)
        with self.database.write() as tx:
            registry.put_version(tx, pushed.manifest, actor="test")

    def wait_for(self, endpoint: str, state: str, to: str = "") -> dict[str, Any]:
        """The rollout's status once it is in `state` (and to that version)."""
        deadline = time.monotonic() + 60
        while True:
            status: dict[str, Any] = self.ask(f"rollouts/{endpoint}").json()
            if status["state"] == state and to in ("", status["to"]):
                return status
            assert time.monotonic() < deadline, status
            time.sleep(0.02)


def endpoint(name: str, model: str, **spec: Any) -> dict[str, Any]:
    """A resource as plain values."""
    return {"kind": "Endpoint", "metadata": {"name": name}, "spec": {"model": model, **spec}}
