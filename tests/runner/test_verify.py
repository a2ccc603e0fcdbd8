"""A runner of a registered version loads exactly what was pushed, or refuses and says which file is at fault."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hyperion.runner.verify import verify_version
from hyperion.schema.config import RunnerConfig
from hyperion.schema.errors import ModelRefused
from hyperion.schema.registry import VerifiedSpec
from hyperion.store.blobs.directory import LocalBlobs
from hyperion.store.versions.materialise import materialise
from hyperion.store.versions.push import Details, prepare_push, put_files

MODEL = """
import os, signal
from .weights import BIAS
class Model:
    inputs = {"x": ("FP32", [-1, 1])}
    outputs = {"y": ("FP32", [-1, 1])}
    def predict(self, inputs):
        return {"y": inputs["x"] + BIAS}
"""
RUN = """
import os, signal, sys, msgspec
from hyperion.runner.process import run
from hyperion.schema.config import RunnerConfig
def notify(line):
    print(line, flush=True)
    if line == "READY=1":
        os.kill(os.getpid(), signal.SIGTERM)
sys.exit(run(msgspec.json.decode(sys.argv[1], type=RunnerConfig), notify))
"""


@pytest.fixture
def version(tmp_path: Path) -> VerifiedSpec:
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.py").write_text(MODEL)
    (source / "weights.py").write_text("BIAS = 1\n")
    pushed = prepare_push("m", "7", source, Details(git_commit=""))
    blobs = LocalBlobs(tmp_path / "blobs")
    put_files(blobs, pushed.sources)
    return materialise(pushed.manifest, blobs, tmp_path / "artifacts", name="fraud")


def config_of(version: VerifiedSpec, inline: bool = False) -> RunnerConfig:
    socket = str(Path(version.root).parents[2] / "s")
    files = version.files if inline else ()
    return RunnerConfig("fraud@7", socket, version.spec, root=version.root, verified=files)


def run_runner(config: RunnerConfig) -> tuple[int, str]:
    """Exit code of a real runner process that ends as soon as it is ready, and what it told its supervisor."""
    command = [sys.executable, "-c", RUN, msgspec.json.encode(config).decode()]
    # Whoever ran the tests may have turned bytecode off; the runner has to do that by itself.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("inline", [True, False])
def test_an_untouched_version_is_loaded_and_its_directory_stays_as_it_is(version: VerifiedSpec, inline: bool) -> None:
    config = config_of(version, inline)
    assert run_runner(config) == (0, "READY=1\n")
    assert sorted(os.listdir(version.root)) == ["model.py", "weights.py"]


def flip(root: Path) -> None:
    content = bytearray((root / "weights.py").read_bytes())
    content[-2] ^= 1
    os.chmod(root / "weights.py", 0o644)
    (root / "weights.py").write_bytes(content)


def shorten(root: Path) -> None:
    os.truncate(root / "weights.py", 3)


def add(root: Path) -> None:
    (root / "numpy.py").write_text("raise SystemExit")


def remove(root: Path) -> None:
    os.unlink(root / "weights.py")


def link_out(root: Path) -> None:
    outside = root.parents[2] / "outside.py"
    outside.write_text("BIAS = 1\n")
    os.unlink(root / "weights.py")
    os.symlink(outside, root / "weights.py")


def add_link(root: Path) -> None:
    os.symlink("/etc", root / "more")


def add_bytecode(root: Path) -> None:
    (root / "__pycache__").mkdir()


def put_pipe(root: Path) -> None:
    os.unlink(root / "weights.py")
    os.mkfifo(root / "weights.py")


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (flip, "file 'weights.py' has the SHA-256"),
        (add, "'numpy.py' is not among the files of the version; remove it"),
        (remove, "file 'weights.py' is missing"),
        (link_out, "'weights.py' is a symbolic link"),
    ],
)
def test_a_real_runner_refuses_what_was_tampered_with(
    version: VerifiedSpec, tamper: Callable[[Path], None], said: str
) -> None:
    tamper(Path(version.root))
    code, told = run_runner(config_of(version))
    assert code == 3
    assert told.startswith(f"ERROR=fraud@7: {said}")
    assert "push" in told or "remove" in told


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (shorten, "has 3 bytes, the version's has 9"),
        (add_link, "'more' is a symbolic link"),
        (add_bytecode, "'__pycache__' is not among the files"),
        (put_pipe, "is a device, pipe or socket"),
        (lambda root: os.rename(root, root.with_name("away")), "its directory is gone"),
        (lambda root: root.with_name(root.name + ".files").unlink(), "the list of its files cannot be read"),
    ],
)
def test_every_other_difference_is_refused_too(
    version: VerifiedSpec, tamper: Callable[[Path], None], said: str
) -> None:
    tamper(Path(version.root))
    with pytest.raises(ModelRefused) as caught:
        verify_version(config_of(version))
    assert said in caught.value.message


def test_a_list_that_was_changed_with_the_file_is_refused(version: VerifiedSpec) -> None:
    flip(Path(version.root))
    listed = Path(version.root + ".files")
    entries = msgspec.json.decode(listed.read_bytes())
    entries[1]["sha256"] = hashlib.sha256((Path(version.root) / "weights.py").read_bytes()).hexdigest()
    os.chmod(listed, 0o644)
    listed.write_bytes(msgspec.json.encode(entries))
    with pytest.raises(ModelRefused, match="another digest than the version"):
        verify_version(config_of(version))


def test_only_what_was_verified_can_be_loaded(version: VerifiedSpec) -> None:
    elsewhere = msgspec.structs.replace(version.spec, path="/etc")
    with pytest.raises(ModelRefused, match="not among the files of the version"):
        verify_version(msgspec.structs.replace(config_of(version), spec=elsewhere))
