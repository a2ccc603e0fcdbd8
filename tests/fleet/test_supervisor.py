"""The supervisor with real children: restarts, refusals, stops, order, output, and its own death."""

import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from hyperion.fleet.ask import ask
from hyperion.fleet.messages import Child, Children, ChildSpec, List, Ok, Refused, Start, Stop

HERE = Path(__file__).parent
CHILD = (sys.executable, str(HERE / "child.py"))


class Host:
    """A supervisor process, its socket, and what it wrote to stderr."""

    def __init__(self, run_dir: Path, specs: tuple[ChildSpec, ...] = ()) -> None:
        self.socket = run_dir / "supervisor.sock"
        self.log = run_dir / "log"
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "host.py"), str(run_dir), msgspec.json.encode(specs).decode()],
                stderr=stream,
            )
        while not self.socket.exists():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)

    def start(self, name: str, *steps: str, wave: int = 0, output_bytes_s: int = 0, silence_s: float = 0.0) -> None:
        spec = ChildSpec(name, CHILD + steps, wave=wave, output_bytes_s=output_bytes_s, silence_s=silence_s)
        assert ask(self.socket, Start(spec)) == Ok()

    def wait_for(self, name: str, test: Callable[[Child], bool], timeout_s: float = 50.0) -> Child:
        """Wait until the child fulfils the test, following the supervisor's revisions."""
        revision, end_s = -1, time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            answer = ask(self.socket, List(revision, 1.0))
            assert isinstance(answer, Children)
            revision = answer.revision
            for child in answer.children:
                if child.name == name and test(child):
                    return child
        raise AssertionError(f"{name} is {answer.children}; log: {self.log.read_text()}")

    def wait_until_gone(self, name: str, timeout_s: float = 50.0) -> None:
        revision, end_s = -1, time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            answer = ask(self.socket, List(revision, 1.0))
            assert isinstance(answer, Children)
            revision = answer.revision
            if name not in {child.name for child in answer.children}:
                return
        raise AssertionError(f"{name} is still there: {answer.children}")


def is_ready(child: Child) -> bool:
    return child.state == "ready"


def wait_for_death(pids: list[int], timeout_s: float = 30.0) -> None:
    """Return when none of the processes runs any more."""
    end_s = time.monotonic() + timeout_s
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ready, _, _ = select.select([descriptor], [], [], max(0.0, end_s - time.monotonic()))
        os.close(descriptor)
        assert ready, f"process {pid} still runs"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    started = Host(tmp_path)
    yield started
    started.process.send_signal(signal.SIGTERM)
    started.process.send_signal(signal.SIGTERM)
    started.process.wait(30)


def test_a_child_is_starting_until_it_says_that_it_is_ready(host: Host) -> None:
    host.start("slow", "sleep")
    host.start("quick", "ready", "sleep")
    assert host.wait_for("quick", is_ready).pid > 0
    assert host.wait_for("slow", lambda child: child.pid > 0).state == "starting"


def test_a_killed_child_that_was_ready_is_started_again(host: Host) -> None:
    host.start("worker", "ready", "sleep")
    first = host.wait_for("worker", is_ready)
    os.kill(first.pid, signal.SIGKILL)
    second = host.wait_for("worker", lambda child: is_ready(child) and child.pid != first.pid)
    assert (second.restarts, second.exit) == (1, "killed by SIGKILL")


def test_a_child_that_dies_before_it_is_ready_is_started_again_after_a_while(host: Host, tmp_path: Path) -> None:
    host.start("shaky", f"die-once={tmp_path / 'died'}", "ready", "sleep")
    assert host.wait_for("shaky", is_ready).restarts == 1


def test_a_child_that_refuses_to_start_is_left_alone_with_its_reason(host: Host) -> None:
    host.start("refused", "error=model x: no such file", "exit=3")
    child = host.wait_for("refused", lambda child: child.state == "failed")
    assert (child.reason, child.exit, child.restarts, child.pid) == ("model x: no such file", "exit code 3", 0, 0)
    host.start("refused", "ready", "sleep")  # it is still there, so this changes nothing
    assert ask(host.socket, Stop("refused")) == Ok()
    host.wait_until_gone("refused")


def test_a_program_that_does_not_exist_fails_and_hurts_nobody(host: Host) -> None:
    assert ask(host.socket, Start(ChildSpec("nothing", ("/no/such/program",)))) == Ok()
    assert "No such file" in host.wait_for("nothing", lambda child: child.state == "failed").reason


def test_a_child_that_could_not_be_started_for_want_of_descriptors_is_started_when_there_are_some(host: Host) -> None:
    host.start("worker", "ready", "sleep")
    first = host.wait_for("worker", is_ready)
    held = len(os.listdir(f"/proc/{host.process.pid}/fd"))
    most = resource.prlimit(host.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(host.process.pid, resource.RLIMIT_NOFILE, (held, most[1]))
    os.kill(first.pid, signal.SIGKILL)
    while "cannot start" not in host.log.read_text():
        time.sleep(0.01)
    resource.prlimit(host.process.pid, resource.RLIMIT_NOFILE, most)
    again = host.wait_for("worker", lambda child: is_ready(child) and child.pid != first.pid)
    assert (again.restarts >= 2, again.reason) == (True, "")


def test_file_descriptors_of_the_supervisor_cannot_be_named_from_outside(host: Host) -> None:
    answer = ask(host.socket, Start(ChildSpec("thief", (*CHILD, "sleep"), pass_fds=(0,))))
    assert isinstance(answer, Refused)


def test_starting_a_child_twice_keeps_the_first(host: Host) -> None:
    host.start("one", "ready", "sleep")
    pid = host.wait_for("one", is_ready).pid
    host.start("one", "ready", "sleep")
    assert host.wait_for("one", is_ready).pid == pid


def test_a_child_deaf_to_sigterm_is_killed_after_its_grace(host: Host) -> None:
    host.start("deaf", "deaf", "ready", "sleep")
    pid = host.wait_for("deaf", is_ready).pid
    ask(host.socket, Stop("deaf", grace_s=0.1))
    host.wait_until_gone("deaf")
    wait_for_death([pid])


def test_what_a_child_started_dies_with_it(host: Host) -> None:
    host.start("parent", "grandchild", "deaf", "sleep")
    grandchild = int(host.wait_for("parent", lambda child: child.status != "").status)
    ask(host.socket, Stop("parent", grace_s=0.0))
    host.wait_until_gone("parent")
    wait_for_death([grandchild])


def test_killing_the_supervisor_leaves_nothing_running(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.start("a", "ready", "sleep")
    host.start("b", "deaf", "ready", "sleep")
    pids = [host.wait_for(name, is_ready).pid for name in ("a", "b")]
    host.process.kill()
    host.process.wait(30)
    wait_for_death(pids)


def test_one_that_was_stopped_gives_no_sign_of_life_and_is_started_again(host: Host) -> None:
    host.start("stirring", "ready", "stirs", silence_s=3.0)
    host.start("silent", "ready", "sleep", silence_s=0.5)
    host.start("unwatched", "ready", "sleep")
    silent = host.wait_for("silent", lambda child: child.restarts >= 2)
    assert silent.exit == "killed by SIGKILL"
    assert "gave no sign of life for 0.5 s" in host.log.read_text()
    first = host.wait_for("stirring", is_ready)
    assert first.restarts == 0
    os.kill(first.pid, signal.SIGSTOP)
    again = host.wait_for("stirring", lambda child: is_ready(child) and child.restarts == 1)
    assert again.pid != first.pid
    assert host.wait_for("unwatched", is_ready).restarts == 0


def test_sigterm_stops_the_waves_in_order(tmp_path: Path) -> None:
    host = Host(tmp_path, (ChildSpec("front", (*CHILD, "ready", "sleep")),))
    host.start("back", "ready", "sleep", wave=2)
    front, back = (host.wait_for(name, is_ready).pid for name in ("front", "back"))
    os.kill(front, signal.SIGSTOP)  # it cannot leave, so the next wave must not be asked to
    while Path(f"/proc/{front}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.001)  # of two signals at once, the kernel would deliver the one that ends it first
    host.process.send_signal(signal.SIGTERM)
    stopping = host.wait_for("front", lambda child: child.state == "stopping")
    assert stopping.pid == front
    assert is_ready(host.wait_for("back", lambda child: True))
    os.kill(front, signal.SIGCONT)
    assert host.process.wait(30) == 0
    wait_for_death([front, back])


def test_a_second_signal_kills_at_once(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.start("deaf", "deaf", "ready", "sleep")
    pid = host.wait_for("deaf", is_ready).pid
    host.process.send_signal(signal.SIGINT)
    host.wait_for("deaf", lambda child: child.state == "stopping")
    host.process.send_signal(signal.SIGINT)
    assert host.process.wait(30) == 0  # its grace is 60 s
    wait_for_death([pid])


def test_output_is_prefixed_and_a_child_that_prints_for_ever_hurts_nobody(host: Host) -> None:
    host.start("model", "print=hello", "ready", "sleep", output_bytes_s=4096)
    host.start("chatty", "ready", "print-for-ever", output_bytes_s=4096)
    host.wait_for("chatty", is_ready)
    host.start("other", "ready", "sleep")
    pid = host.wait_for("other", is_ready).pid
    os.kill(pid, signal.SIGKILL)
    host.wait_for("other", lambda child: is_ready(child) and child.restarts == 1)
    lines = host.log.read_text().splitlines()
    assert "model | hello" in lines
    assert sum(line.startswith("chatty | ") for line in lines) <= 40 * 4096 // 160
