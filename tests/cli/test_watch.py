"""When `serve` says that it serves, and when it gives up."""

import io
from pathlib import Path

import msgspec
import pytest

from hyperion.cli.banner import Addresses
from hyperion.cli.watch import Watch
from hyperion.fleet.messages import BACKOFF, FAILED, READY, STARTING, Child
from hyperion.fleet.replicas import CONTROL_WAVE, GATEWAY_WAVE, RUNNER_WAVE
from hyperion.schema.model import ModelOptions, Signature
from hyperion.schema.snapshot import ModelState, ServedModel, ServedVersion, Snapshot

SERVED = ServedModel("m", "1", (ServedVersion("1", "", 1, "python", Signature((), ()), ModelOptions(), ()),))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Scene:
    def __init__(
        self, home: Path, snapshot: Snapshot, out: io.StringIO | None = None, paths: tuple[str, ...] = ()
    ) -> None:
        (home / "snapshot.json").write_bytes(msgspec.json.encode(snapshot))
        self.out, self.err, self.ended = out or io.StringIO(), io.StringIO(), False
        addresses = Addresses("http://127.0.0.1:1", "", "http://127.0.0.1:2/", home, paths)
        self.watch = Watch(addresses, 2, self.end, self.out, self.err)

    def end(self) -> None:
        self.ended = True

    def look(self, control: str = READY, gateways: tuple[str, ...] = (READY, READY), **fields: str) -> None:
        children = [Child("control", control, wave=CONTROL_WAVE, **fields)]  # type: ignore[arg-type]
        children += [Child(f"gateway {n}", state, wave=GATEWAY_WAVE) for n, state in enumerate(gateways)]
        self.watch.look((*children, Child("m@1.g1.0", FAILED, wave=RUNNER_WAVE)))


def test_it_serves_when_control_and_every_gateway_are_ready_and_says_so_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Snapshot(1, (SERVED,), (ModelState("m", "1", "READY"),)))
    scene.look(control=STARTING)
    scene.look(gateways=(READY, STARTING))
    assert scene.out.getvalue() == ""
    scene.look()
    scene.look()
    assert scene.out.getvalue().count("Hyperion serves 1 model") == 1
    assert not scene.ended


def test_an_empty_home_is_served_too(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Snapshot(1))
    scene.look()
    assert ("serves 0 models" in scene.out.getvalue(), scene.ended) == (True, False)


BROKEN = ModelState("m", "1", "UNAVAILABLE", "no such file")
OF_AN_EARLIER_START = ModelState("old", "", "UNAVAILABLE", "unloaded")


def test_it_gives_up_where_no_path_can_be_served_and_names_only_what_should_be(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Snapshot(1, (), (BROKEN, OF_AN_EARLIER_START)), paths=("m",))
    scene.look()
    assert (scene.ended, scene.watch.exit_code, scene.out.getvalue()) == (True, 1, "")
    assert scene.err.getvalue() == 'hyperion: model "m": no such file\n'


def test_a_home_of_which_nothing_can_be_served_is_kept_up_so_that_it_can_be_mended(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Snapshot(1, (), (BROKEN, OF_AN_EARLIER_START)))
    scene.look()
    assert (scene.ended, scene.err.getvalue()) == (False, "")
    assert "m: UNAVAILABLE: no such file" in scene.out.getvalue()
    assert "old" not in scene.out.getvalue()


@pytest.mark.parametrize(("reason", "said"), [("no PATH", "no PATH"), ("", "control cannot start (exit code 3)")])
def test_it_gives_up_with_the_reason_where_control_refuses(tmp_path: Path, reason: str, said: str) -> None:
    scene = Scene(tmp_path, Snapshot(1))
    scene.look(control=FAILED, reason=reason, exit="exit code 3")
    assert (scene.ended, scene.watch.exit_code, scene.err.getvalue()) == (True, 1, f"hyperion: {said}\n")


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    for out, shown in ((Terminal(), True), (io.StringIO(), False)):
        scene = Scene(tmp_path, Snapshot(1), out)
        scene.look(control=STARTING, status="loading m")
        assert ("loading m" in out.getvalue()) is shown


@pytest.mark.parametrize("state", [BACKOFF, FAILED])
def test_it_gives_up_where_a_setting_is_found_wrong_after_the_paths_are_served(tmp_path: Path, state: str) -> None:
    scene = Scene(tmp_path, Snapshot(1, (SERVED,), (ModelState("m", "1", "READY"),)), paths=("m",))
    scene.look()
    scene.look(control=state, exit="exit code 3", reason="--trusted-keys: no key")
    scene.look(control=STARTING)
    assert (scene.ended, scene.watch.exit_code) == (True, 1)
    assert scene.err.getvalue() == "hyperion: --trusted-keys: no key\n"


@pytest.mark.parametrize(("exit_", "reason"), [("exit code 3", "the key is gone"), ("killed by SIGKILL", "")])
def test_a_control_that_was_whole_once_may_come_back(tmp_path: Path, exit_: str, reason: str) -> None:
    scene = Scene(tmp_path, Snapshot(1, (SERVED,), (ModelState("m", "1", "READY"),)), paths=("m",))
    scene.look()
    scene.look(status="the store is open" if reason else "")
    scene.look(control=BACKOFF, exit=exit_, reason=reason)
    assert (scene.ended, scene.err.getvalue()) == (False, "")
