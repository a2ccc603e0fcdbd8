"""A gateway as a process: its snapshots, its siblings, TLS, and how it starts and leaves."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyperion.gateway import accept, link
from hyperion.gateway.link import ControlLink
from hyperion.gateway.process import Gateway, run
from hyperion.gateway.siblings import Siblings, fetch, socket_of
from hyperion.gateway.tls import make_tls_context
from hyperion.schema.config import GatewayConfig
from hyperion.schema.errors import InternalError, InvalidConfig, ModelRefused, NotReady
from hyperion.schema.events import RequestRecord
from hyperion.schema.protect import Access, Directory, Protection, TenantRecord
from hyperion.schema.snapshot import ServedModel, ServedVersion, Snapshot
from hyperion.telemetry.logs import EventLog
from hyperion.telemetry.metrics import Metrics
from hyperion.wire.link import Decoder, Done, Load, Message, Poll, Publish, Unload, encode
from tests.gateway.runners import Fifo
from tests.gateway.serving import Client, get, infer, on_uvloop, serving


class Control:
    """Control's side of the link: each poll takes the next answer, each load the answer of `changes`."""

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()
        self.change = Done()
        self.writers: list[asyncio.StreamWriter] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        decoder = Decoder()
        while data := await reader.read(1 << 16):
            for message in decoder.feed(data):
                self.asked.append(message)
                writer.write(await self.answers.get() if isinstance(message, Poll) else encode(self.change))
        writer.close()

    async def was_asked(self, count: int) -> None:
        """Until so many messages have come."""
        while len(self.asked) < count:  # noqa: ASYNC110 (both sides run on this loop; it is a matter of turns)
            await asyncio.sleep(0.001)


@asynccontextmanager
async def control(path: Path) -> AsyncIterator[Control]:
    side = Control()
    server = await asyncio.start_unix_server(side.talk, str(path))
    try:
        yield side
    finally:
        server.close()
        for writer in side.writers:
            writer.close()


class Followed:
    """A link, and what it made of it."""

    def __init__(self, directory: Path, worker: int = 0) -> None:
        self.applied: list[int] = []
        self.more = asyncio.Event()
        self.kept = directory / "snapshot.json"
        self.held: tuple[str, ...] = ("m@1.g1.0",)
        self.link = ControlLink(
            directory / "control.sock", self.kept, worker, self.apply, lambda: self.held, EventLog("gateway")
        )

    async def apply(self, snapshot: Snapshot) -> None:
        self.applied.append(snapshot.version)
        self.more.set()

    async def until(self, *versions: int) -> None:
        while self.applied != list(versions):
            self.more.clear()
            await self.more.wait()


@on_uvloop
async def test_a_gateway_follows_control_and_asks_for_what_is_newer(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    async with control(tmp_path / "control.sock") as side:
        following = asyncio.create_task(followed.link.follow())
        for answer in (Publish(Snapshot(3)), Publish(), Publish(Snapshot(4))):
            side.answers.put_nowait(encode(answer))
        await followed.until(3, 4)
        assert side.asked[0] == Poll(0, 0, ("m@1.g1.0",))
        await side.was_asked(4)
        assert [poll.have for poll in side.asked if isinstance(poll, Poll)] == [0, 3, 3, 4]
        following.cancel()


@on_uvloop
async def test_control_is_told_of_drained_replicas_though_its_answer_is_still_waited_for(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    async with control(tmp_path / "control.sock") as side:
        following = asyncio.create_task(followed.link.follow())
        side.answers.put_nowait(encode(Publish(Snapshot(1))))
        await followed.until(1)
        await side.was_asked(2)
        followed.held = ()
        followed.link.tell_drained()
        while followed.link._changed.is_set():  # noqa: ASYNC110 (it is a matter of turns)
            await asyncio.sleep(0.001)
        followed.held = ("later",)
        side.answers.put_nowait(encode(Publish()))
        await side.was_asked(3)
        assert [poll.draining for poll in side.asked if isinstance(poll, Poll)][2] == ()
        following.cancel()


@on_uvloop
async def test_a_gateway_finds_control_again_and_survives_what_it_says(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    following = asyncio.create_task(followed.link.follow())
    await asyncio.sleep(0)  # nobody is there
    for version, nonsense in ((1, b"\xff\xff\xff\xff"), (2, b"\x02\x00\x00\x00{}")):
        async with control(tmp_path / "control.sock") as side:
            side.answers.put_nowait(encode(Publish(Snapshot(version))))
            await followed.until(*range(1, version + 1))
            side.answers.put_nowait(nonsense)
            side.answers.put_nowait(encode(Publish()))
            await side.was_asked(3)
        (tmp_path / "control.sock").unlink(missing_ok=True)
    assert not following.done()
    following.cancel()


@on_uvloop
async def test_a_gateway_is_as_quick_to_find_control_again_after_the_third_time_as_after_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "RETRY_S", (0.0, 0.0, 3600.0))
    followed = Followed(tmp_path)
    async with control(tmp_path / "control.sock") as side:
        following = asyncio.create_task(followed.link.follow())
        for count in range(1, 5):
            await side.was_asked(count)
            side.writers[-1].close()
        following.cancel()


@on_uvloop
async def test_the_last_good_snapshot_is_on_disk_and_served_before_control_is_there(tmp_path: Path) -> None:
    followed = Followed(tmp_path)
    async with control(tmp_path / "control.sock") as side:
        following = asyncio.create_task(followed.link.follow())
        side.answers.put_nowait(encode(Publish(Snapshot(7))))
        await followed.until(7)
        await side.was_asked(2)
        following.cancel()
    later = Followed(tmp_path)
    await later.link.restore()
    assert later.applied == [7]


@on_uvloop
async def test_only_the_first_worker_keeps_the_snapshot_and_a_full_disk_costs_the_copy_only(tmp_path: Path) -> None:
    for worker, snapshot_path in ((1, "snapshot.json"), (0, "no-such-directory/snapshot.json")):
        followed = Followed(tmp_path, worker)
        followed.link._snapshot_path = tmp_path / snapshot_path
        await followed.link._take(Snapshot(5))
        assert followed.applied == [5]
        assert not followed.kept.exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": "x"}', b"\xff"])
@on_uvloop
async def test_a_snapshot_that_cannot_be_read_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    followed = Followed(tmp_path)
    await followed.link.restore()
    followed.kept.write_bytes(content)
    await followed.link.restore()
    assert followed.applied == []


@on_uvloop
async def test_a_load_ends_when_control_says_so_and_with_the_error_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Followed(tmp_path).link
    with monkeypatch.context() as impatient:
        impatient.setattr("hyperion.gateway.link.CONTROL_RESTART_S", -1.0)
        with pytest.raises(NotReady, match="away"):
            await link.change_model("m", {})
    async with control(tmp_path / "control.sock") as side:
        await link.change_model("m", {"a": 1})
        await link.change_model("m", None)
        assert side.asked == [Load("m", {"a": 1}), Unload("m")]
        side.change = Done("the file is broken", "model_refused")
        with pytest.raises(ModelRefused, match="the file is broken"):
            await link.change_model("m", {})
        side.change = Done("what", "no such code")
        with pytest.raises(InternalError, match="what"):
            await link.change_model("m", {})
        side.change = Publish()  # type: ignore[assignment]
        with pytest.raises(InternalError, match="no answer"):
            await link.change_model("m", {})


@on_uvloop
async def test_a_load_whose_control_dies_is_told_so(tmp_path: Path) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_unix_server(die, str(tmp_path / "control.sock"))
    with pytest.raises(NotReady, match="went away"):
        await Followed(tmp_path).link.change_model("m", {})
    server.close()


# --- siblings ---


@on_uvloop
async def test_any_worker_shows_the_metrics_of_all_and_leaves_out_who_does_not_answer(tmp_path: Path) -> None:
    metrics = [Metrics() for _ in range(2)]
    siblings = [Siblings(tmp_path, worker, 4, one) for worker, one in enumerate(metrics)]
    for worker, one in enumerate(metrics):
        for _ in range(worker + 1):
            one.record(RequestRecord("id", "m", "1", "http", "200", 5_000_000, rows=1))
    servers = [
        await asyncio.start_unix_server(one.answer, str(socket_of(tmp_path, n))) for n, one in enumerate(siblings)
    ]

    async def nonsense(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"nonsense")
        writer.close()

    servers.append(await asyncio.start_unix_server(nonsense, str(socket_of(tmp_path, 2))))  # and number 3 is not there
    for one in siblings:
        text = (await one.scrape()).decode()
        assert 'hyperion_requests_total{endpoint="m",version="1",protocol="http",code="200"} 3' in text
        assert 'hyperion_request_seconds_count{endpoint="m",version="1"} 3' in text
    for server in servers:
        server.close()


@on_uvloop
async def test_a_worker_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyperion.gateway.siblings.TIMEOUT_S", 0.02)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(socket_of(tmp_path, 0)))
        silent.listen()
        assert await fetch(socket_of(tmp_path, 0)) is None


# --- TLS ---


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and a server and a client that it vouches for; and a stranger."""
    directory = tmp_path_factory.mktemp("tls")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "stranger"):
        openssl(
            directory, "req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"
        )
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        issue(directory, name)
    return directory


def issue(directory: Path, name: str) -> None:
    """A key, and a certificate for it that the authority signed."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(directory, "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names")
    openssl(directory, "x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")


def tls_config(certificates: Path, client_ca: bool) -> GatewayConfig:
    def path(name: str) -> str:
        return str(certificates / name)

    return GatewayConfig(
        "",
        "",
        tls_cert=path("server.pem"),
        tls_key=path("server.key"),
        tls_client_ca=path("ca.pem") if client_ca else None,
    )


def client_context(certificates: Path, shows: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    if shows:
        context.load_cert_chain(certificates / f"{shows}.pem", certificates / f"{shows}.key")
    return context


@on_uvloop
async def test_who_connects_to_tls_and_says_nothing_is_left(
    certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "HANDSHAKE_S", 0.2)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    acceptor = accept.Acceptor(listener, asyncio.Protocol, make_tls_context(tls_config(certificates, False), "h2"))
    with Client(*await asyncio.open_connection("127.0.0.1", port)) as silent:
        assert await silent.rest() == b""
    acceptor.close()


@pytest.mark.parametrize("client_ca", [False, True])
@on_uvloop
async def test_requests_go_through_tls(obedient: ServedVersion, certificates: Path, client_ca: bool) -> None:
    tls = make_tls_context(tls_config(certificates, client_ca), "http/1.1")
    async with serving(("obedient", obedient), tls=tls) as gateway:
        with await gateway.connect(client_context(certificates, "client")) as client:
            text = "x" * 300_000
            client.send(infer("a"), infer(text), get("/v2/health/live"))
            assert (await client.answer()).said == ["a"]
            assert (await client.answer()).said == [text]
            assert (await client.answer()).status == 200
            assert (await client.ask(b"no HTTP\r\n\r\n")).status == 400
            assert await client.rest() == b""


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"tls_key": "client.key"}, "server.pem and key .*client.key cannot be used together"),
        ({"tls_key": "encrypted.key"}, "encrypted.key is encrypted"),
        ({"tls_cert": "names"}, "names and key .*server.key cannot be used together"),
        ({"tls_client_ca": "names"}, "client CA .*names cannot be used .*expected certificates in PEM"),
        ({"tls_client_ca": "nothing"}, "nothing cannot be read: No such file"),
    ],
)
def test_tls_files_that_cannot_be_used_are_refused_by_name(
    certificates: Path, broken: dict[str, str], message: str
) -> None:
    openssl(certificates, "ec", "-in", "server.key", "-out", "encrypted.key", "-aes256", "-passout", "pass:secret")
    paths = {field: str(certificates / name) for field, name in broken.items()}
    with pytest.raises(InvalidConfig, match=message):
        make_tls_context(msgspec.structs.replace(tls_config(certificates, True), **paths), "h2")


@pytest.mark.parametrize("shows", ["", "stranger"])
@on_uvloop
async def test_a_client_without_the_right_certificate_gets_nothing(
    obedient: ServedVersion, certificates: Path, shows: str
) -> None:
    tls = make_tls_context(tls_config(certificates, True), "http/1.1")
    async with serving(("obedient", obedient), tls=tls) as gateway:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await (await gateway.connect(client_context(certificates, shows))).ask(infer("x"))
        assert not gateway.events()
        with await gateway.connect() as plain:
            plain.send(infer("x"))
            assert b"HTTP/1.1 200" not in await plain.rest()


def test_without_a_certificate_there_is_no_tls() -> None:
    assert make_tls_context(GatewayConfig("", ""), "h2") is None


# --- the process ---


class Running:
    """A gateway's `run` in this process."""

    def __init__(self, config: GatewayConfig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ready = asyncio.Event()
        # What it freezes would never be collected again in a process that goes on with other tests.
        for name in ("freeze", "set_threshold"):
            monkeypatch.setattr(f"hyperion.gateway.process.gc.{name}", lambda *_: None)
        self.gateway = Gateway(config, self._notify)
        self.ended = asyncio.create_task(self.gateway.run())

    def _notify(self, line: str) -> None:
        assert line == "READY=1"
        self.ready.set()


def process_config(directory: Path, served: ServedVersion, listener: socket.socket, **more: Any) -> GatewayConfig:
    """A gateway that finds the model in its last good snapshot and nobody to tell it of a newer one."""
    (directory / "home").mkdir()
    (directory / "run").mkdir()
    snapshot = Snapshot(9, (ServedModel("obedient", "1", (served,)),))
    (directory / "home" / "snapshot.json").write_bytes(msgspec.json.encode(snapshot))
    return GatewayConfig(str(directory / "run"), str(directory / "home"), http_fd=listener.fileno(), **more)


@on_uvloop
async def test_a_gateway_serves_its_last_good_snapshot_and_leaves_on_sigterm_after_its_answers(
    tmp_path: Path, obedient: ServedVersion, new_fifo: Callable[[], Fifo], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = process_config(tmp_path, obedient, listener, workers=2)
        running = Running(config, monkeypatch)
        await running.ready.wait()
        port = listener.getsockname()[1]
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        answer = await client.ask(infer("x"))
        assert (answer.status, answer.said) == (200, ["x"])
        metrics = (await client.ask(get("/metrics"))).body.decode()
        assert "hyperion_snapshot_version 9" in metrics
        assert "hyperion_connections 1" in metrics
        alone = await fetch(socket_of(tmp_path / "run", 0))
        assert alone is not None
        assert alone.gauges["hyperion_snapshot_version"] == {(): 9.0}
        fifo = new_fifo()
        client.send(infer(fifo.command))
        await fifo.reached()
        waiter = Client(*await asyncio.open_connection("127.0.0.1", port))
        await waiter.ask(get("/v2/health/ready"))
        waiter.send(get("/v2/health/ready")[:-2])
        while not any(one._in_head for one in running.gateway._edge.connections):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)
        while not running.gateway._edge.draining:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert not running.ended.done()
        waiter.send(b"\r\n")
        ready = await waiter.answer()
        assert (ready.status, ready.headers["connection"]) == (503, "close")
        fifo.release()
        last = await client.answer()
        assert (last.said, last.headers["connection"]) == ([fifo.command], "close")
        assert await client.rest() == b""  # it waits for no client to leave
        assert await running.ended == 0


@pytest.mark.interpreted
@on_uvloop
async def test_a_gateway_whose_background_task_dies_ends_with_a_failure(
    tmp_path: Path, obedient: ServedVersion, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = Running(process_config(tmp_path, obedient, listener), monkeypatch)
        await running.ready.wait()
        monkeypatch.setattr(running.gateway._pipeline, "look_at_deadlines", lambda: 1 / 0)
        assert await running.ended == 1
    assert "a background task ended" in capsys.readouterr().err


@on_uvloop
async def test_a_gateway_that_rests_is_roused_by_the_next_call_and_ends_it_in_time(
    tmp_path: Path, obedient: ServedVersion, new_fifo: Callable[[], Fifo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperion.gateway.process.IDLE_LOOKS", 1)
    monkeypatch.setattr("hyperion.gateway.process.REST_S", 3600.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = Running(process_config(tmp_path, obedient, listener), monkeypatch)
        await running.ready.wait()
        client = Client(*await asyncio.open_connection("127.0.0.1", listener.getsockname()[1]))
        for fifo in (new_fifo(), new_fifo()):
            while not running.gateway._pipeline.resting:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert (await client.ask(infer(fifo.command, **{"x-request-timeout-ms": 30}))).status == 504
            await fifo.reached()
            assert not running.gateway._pipeline.resting  # the replica still computes
            fifo.release()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running.ended == 0


def test_a_gateway_that_cannot_listen_says_so(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = GatewayConfig(str(tmp_path / "run"), str(tmp_path), port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            run(config, lambda _line: None)


@on_uvloop
async def test_what_takes_long_to_follow_holds_up_no_newer_snapshot_and_is_acknowledged_when_it_is_done(
    tmp_path: Path,
) -> None:
    followed = Followed(tmp_path)
    done = {3: asyncio.Event(), 4: asyncio.Event(), 5: asyncio.Event()}
    done[4].set()
    applied = followed.apply

    async def apply(snapshot: Snapshot) -> None:
        await applied(snapshot)
        await done[snapshot.version].wait()

    link = ControlLink(
        tmp_path / "control.sock", followed.kept, 0, apply, tuple, EventLog("gateway"), lambda: {"m": "why"}
    )
    async with control(tmp_path / "control.sock") as side:
        following = asyncio.create_task(link.follow())
        side.answers.put_nowait(encode(Publish(Snapshot(3))))
        await side.was_asked(2)
        assert side.asked[1] == Poll(0, 0, (), 3, {"m": "why"})
        side.answers.put_nowait(encode(Publish(Snapshot(4))))
        await side.was_asked(3)
        assert side.asked[2] == Poll(0, 4, (), 4, {"m": "why"})
        done[3].set()
        side.answers.put_nowait(encode(Publish(Snapshot(5))))
        await side.was_asked(4)
        assert side.asked[3] == Poll(0, 4, (), 5, {"m": "why"})
        done[5].set()  # that is told at once, though the last question has no answer yet
        side.answers.put_nowait(encode(Publish()))
        await side.was_asked(5)
        assert side.asked[4] == Poll(0, 5, (), 5, {"m": "why"})
        following.cancel()


@on_uvloop
async def test_a_client_certificate_stands_for_a_tenant_where_credentials_are_needed(
    obedient: ServedVersion, certificates: Path
) -> None:
    config = msgspec.structs.replace(tls_config(certificates, True), require_auth=True)
    tls = make_tls_context(config, "http/1.1")
    directory = Directory(tenants=(TenantRecord("jobs", certificates=("client",)),))
    only = Protection(access=Access(tenants=("jobs",)))
    async with serving(("obedient", obedient), tls=tls, require_auth=True) as gateway:
        await gateway.protect(("obedient", obedient), protection=only, directory=directory)
        for shows, status in (("client", 200), ("server", 403), ("", 401)):
            with await gateway.connect(client_context(certificates, shows)) as client:
                assert (await client.ask(infer("a"))).status == status, shows


def shown_by(client: Client) -> str:
    """The common name in the server's certificate."""
    subject = client.writer.get_extra_info("peercert")["subject"]
    return str(dict(part[0] for part in subject)["commonName"])


@on_uvloop
async def test_new_certificates_are_taken_without_a_restart_and_bad_ones_are_not(
    obedient: ServedVersion, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperion.gateway.process.TLS_LOOK_S", 0.01)
    issue(certificates, "second")
    paths = {"tls_cert": str(tmp_path / "tls.pem"), "tls_key": str(tmp_path / "tls.key")}
    for kind in ("pem", "key"):
        (tmp_path / f"tls.{kind}").write_bytes((certificates / f"server.{kind}").read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        running = Running(process_config(tmp_path, obedient, listener, **paths), monkeypatch)
        await running.ready.wait()

        async def connect() -> Client:
            context = client_context(certificates)
            return Client(*await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 24))

        with await connect() as old:
            assert shown_by(old) == "server"
            os.replace(certificates / "second.pem", tmp_path / "tls.pem")  # does not belong to the key that lies there
            await asyncio.sleep(0.1)
            with await connect() as client:
                assert shown_by(client) == "server"
            os.replace(certificates / "second.key", tmp_path / "tls.key")
            while True:
                with await connect() as client:
                    if shown_by(client) == "second":
                        assert (await client.ask(infer("a"))).said == ["a"]
                        break
            assert (await old.ask(infer("b"))).said == ["b"]
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running.ended == 0
