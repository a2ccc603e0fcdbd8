"""The sandbox around real processes: every format works in it, and what it forbids says how to ask for it."""

import os
import platform
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hyperion.runner.sandbox.landlock import landlock_abi
from hyperion.runner.sandbox.paths import carve
from hyperion.schema.config import RunnerConfig
from hyperion.schema.model import ModelOptions, ModelSpec
from tests.runner.trained import MAKERS

SERVE = """
import os, signal, sys, msgspec
from hyperion.runner.process import run
from hyperion.schema.config import RunnerConfig
def notify(line):
    print(line, flush=True)
    if line == "READY=1" and "stay" not in sys.argv:
        os.kill(os.getpid(), signal.SIGTERM)
sys.exit(run(msgspec.json.decode(sys.argv[1], type=RunnerConfig), notify))
"""
MODEL = """
import os, pathlib, socket, subprocess, urllib.request
class Model:
    inputs = {"x": ("FP32", [-1, 1])}
    outputs = {"y": ("FP32", [-1, 1])}
    def load(self, directory):
        BODY
    def predict(self, inputs):
        return {"y": inputs["x"]}
"""
pytestmark = pytest.mark.skipif(
    landlock_abi() < 4 or platform.machine() not in ("x86_64", "aarch64"),
    reason="hardware: this kernel has no Landlock, or an old one",
)


def config_of(path: Path, directory: Path, options: ModelOptions, **fields: Any) -> RunnerConfig:
    spec = ModelSpec("m", "1", "python", str(path), options=options)
    return RunnerConfig("m@1.g1.0", str(directory / "s"), spec, **fields)


def run_runner(config: RunnerConfig, **options: Any) -> tuple[int, str, str]:
    """Exit code of a real runner that ends as soon as it is ready; what it told its supervisor; what it logged."""
    command = [sys.executable, "-c", SERVE, msgspec.json.encode(config).decode()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, process_group=0, **options)
    return done.returncode, done.stdout, done.stderr


def load(directory: Path, body: str, options: ModelOptions | None = None, **fields: Any) -> tuple[int, str, str]:
    """Load a Python model whose `load` is `body`."""
    model = directory / "model"
    model.mkdir()
    (model / "model.py").write_text(MODEL.replace("BODY", body))
    return run_runner(config_of(model, directory, options or ModelOptions(threads=1), **fields))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:mlflow")
@pytest.mark.parametrize("maker", MAKERS)
def test_every_format_loads_and_computes_with_several_threads(maker: str, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    case = MAKERS[maker](files)
    spec = msgspec.structs.replace(case.spec, options=msgspec.structs.replace(case.spec.options, threads=2))
    code, told, logged = run_runner(RunnerConfig("m@1.g1.0", str(tmp_path / "s"), spec, home=str(tmp_path / "home")))
    assert (code, told) == (0, "READY=1\n"), logged
    assert "Permission denied" not in logged
    assert "not permitted" not in logged


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ("socket.create_connection(('127.0.0.1', 9))", "set resources.network: true"),
        ("socket.socket()", "set resources.network: true"),
        ("urllib.request.urlopen('http://example.com')", "set resources.network: true"),
        ("subprocess.run(['ls'])", "set resources.processes: true"),
        ("os.fork()", "set resources.processes: true"),
        ("open('/etc/shadow')", "lets a model read its own directory"),
        ("(directory / 'cache').write_text('')", "write to its private TMPDIR only"),
        ("os.environ['MY_SETTING']", "set this one under env"),
        ("os.setgid(7)", "does not allow this call"),
    ],
)
def test_what_is_forbidden_says_how_to_ask_for_it(tmp_path: Path, body: str, hint: str) -> None:
    code, told, _ = load(tmp_path, body)
    assert code == 3
    assert hint in told


@pytest.mark.parametrize(
    ("body", "options", "hint"),
    [
        ("from multiprocessing.shared_memory import SharedMemory as S; S(create=True, size=1)", {}, "processes: true"),
        ("open('/dev/shm/x', 'w')", {}, "processes: true"),
        ("[open('/dev/null') for _ in range(9_999)]", {}, "allows 4,096 open files"),
        ("(pathlib.Path.home() / 'x').write_bytes(bytes(2 << 20))", {"scratch_mb": 1}, "resources.scratch_mb"),
        ('raise RuntimeError("can\'t start new thread")', {}, "1,024 threads"),
        ("socket.socket(socket.AF_UNIX)", {"network": True}, "no Unix sockets"),
        ("import multiprocessing as m; m.get_context('forkserver').Pool(1)", {"processes": True}, "no Unix sockets"),
        ("import multiprocessing as m; m.Manager()", {"processes": True}, "no Unix sockets"),
    ],
)
def test_a_hint_asks_for_what_would_help(tmp_path: Path, body: str, options: dict[str, Any], hint: str) -> None:
    code, told, _ = load(tmp_path, body, ModelOptions(threads=1, **options))
    assert code == 3
    assert hint in told


def test_what_the_sandbox_has_no_part_in_has_no_hint(tmp_path: Path) -> None:
    """A name that nobody knows is no matter of the network that the model was given."""
    body = "socket.getaddrinfo('no.such.name.invalid', 80)"
    code, told, _ = load(tmp_path, body, ModelOptions(threads=1, network=True))
    assert code == 3
    assert "gaierror" in told
    assert "sandbox" not in told


def test_a_module_beside_the_platform_is_named_in_the_hint(tmp_path: Path) -> None:
    (tmp_path / "neighbouring.py").write_text("")
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.py").write_text("import neighbouring\n" + MODEL)
    _, told, _ = run_runner(config_of(model, tmp_path, ModelOptions(threads=1)), cwd=tmp_path)
    assert "--model-paths" in told


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ("socket.create_server(('127.0.0.1', 0)).close()", ModelOptions(threads=1, network=True)),
        ("assert subprocess.run(['true']).returncode == 0", ModelOptions(threads=1, processes=True)),
        (
            "import multiprocessing as m\n        p = m.get_context('fork').Process(target=abs, args=(1,))\n"
            "        p.start(); p.join(); assert p.exitcode == 0",
            ModelOptions(threads=1, processes=True),
        ),
        ("import shutil; shutil.copy(__file__, os.environ['TMPDIR'])", ModelOptions(threads=1)),
        ("(pathlib.Path.home() / '.cache').mkdir(); import tempfile; tempfile.TemporaryFile()", ModelOptions()),
        ("(pathlib.Path(os.environ['TMPDIR']) / 'new').touch(exist_ok=True)", ModelOptions(threads=1)),
        ("import threading; t = threading.Thread(target=list); t.start(); t.join()", ModelOptions(threads=1)),
        ("from multiprocessing.pool import ThreadPool; ThreadPool(2).map(abs, [1])", ModelOptions(threads=2)),
        ("a, b = socket.socketpair(); a.send(b'x')", ModelOptions(threads=1)),
        ("assert os.environ['MINE'] == 'yes'", ModelOptions(threads=1, env={"MINE": "yes"})),
        ("import asyncio; asyncio.run(asyncio.sleep(0))", ModelOptions(threads=1)),
        ("import resource; assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)", ModelOptions(threads=1)),
    ],
)
def test_what_a_model_may_do_works(tmp_path: Path, body: str, options: ModelOptions) -> None:
    code, told, logged = load(tmp_path, body, options)
    assert (code, told) == (0, "READY=1\n"), logged


def test_further_paths_are_readable_when_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "words").write_text("a")
    body = f"open({str(data / 'words')!r}).read()"
    assert load(tmp_path, body, readable=(str(data),))[0] == 0


def test_off_leaves_everything_as_it_was(tmp_path: Path) -> None:
    assert load(tmp_path, "socket.socket().close(); subprocess.run(['true'])", sandbox="off")[0] == 0


def test_strict_refuses_where_a_layer_is_missing_and_names_it(tmp_path: Path) -> None:
    """Nobody made control groups for this runner."""
    code, told, _ = load(tmp_path, "pass", sandbox="strict")
    assert code == 3
    assert "'control group' is missing here" in told


def test_descriptors_of_the_parent_are_closed(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    leaked = os.memfd_create("leak", 0)
    body = f"assert not os.path.exists('/proc/self/fd/{leaked}') or 'leak' not in os.readlink('/proc/self/fd/{leaked}')"
    (model / "model.py").write_text(MODEL.replace("BODY", body))
    try:
        code, told, logged = run_runner(config_of(model, tmp_path, ModelOptions(threads=1)), pass_fds=(leaked,))
    finally:
        os.close(leaked)
    assert (code, told) == (0, "READY=1\n"), logged


def test_who_kills_a_runner_without_a_supervisor_finds_nothing_left(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.py").write_text(MODEL.replace("BODY", "open(os.environ['TMPDIR'] + '/left', 'w').close()"))
    config = msgspec.json.encode(config_of(model, tmp_path, ModelOptions(threads=1))).decode()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "t")}
    (tmp_path / "t").mkdir()
    command = [sys.executable, "-c", SERVE, config, "stay"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, process_group=0) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"READY=1\n"
        assert list((tmp_path / "t").glob("*/left"))
        cleaner = children_of(runner.pid)
        assert len(cleaner) == 1
        watching = os.pidfd_open(cleaner[0])
        runner.send_signal(signal.SIGKILL)
    wait_for(watching)
    assert list((tmp_path / "t").iterdir()) == []
    assert not (tmp_path / "s").exists()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(pidfd: int) -> None:
    """Until the process has ended, which is no child of ours."""
    assert select.select([pidfd], [], [], 30.0)[0]
    os.close(pidfd)


def test_what_is_hidden_is_carved_out_of_what_lies_around_it(tmp_path: Path) -> None:
    for name in ("a", "b/c", "b/home/secret", "home2"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "b" / "home")
    hidden = [tmp_path / "b" / "home", tmp_path / "elsewhere"]
    assert sorted(carve(tmp_path, hidden)) == [tmp_path / "a", tmp_path / "b" / "c", tmp_path / "home2"]
    assert list(carve(tmp_path / "a", hidden)) == [tmp_path / "a"]
    assert list(carve(tmp_path / "b" / "home", hidden)) == []
    inside = tmp_path / "b" / "home" / "secret"
    assert list(carve(inside, hidden)) == [inside]
