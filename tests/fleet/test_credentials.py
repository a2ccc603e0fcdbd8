"""Files of credentials: what is opened is what somebody put where credentials lie, wherever names and links lead."""

import os
from pathlib import Path

import pytest

from hyperion.fleet.credentials import read_credentials
from hyperion.schema.errors import GateRefused, InvalidConfig


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    folder = tmp_path / "credentials"
    (folder / "inner").mkdir(parents=True)
    write(folder / "own")
    write(folder / "inner" / "own")
    write(tmp_path / "admin-token")
    write(tmp_path / "credentials-of-others")
    (folder / "out").symlink_to(tmp_path / "admin-token")
    (folder / "out-of-all").symlink_to("/")
    (folder / "in").symlink_to(folder / "inner" / "own")
    (tmp_path / "to").symlink_to(folder)
    return folder


def write(path: Path) -> None:
    path.write_text("a: b")
    path.chmod(0o600)


def read(path: Path, allowed: Path, most: int = 100) -> bytes:
    return read_credentials(str(path), ("/nowhere", str(allowed)), "its file", most)


@pytest.mark.parametrize("name", ["own", "inner/own", "in", "inner/../own", "../to/own"])
def test_what_lies_there_is_read_by_whatever_name(allowed: Path, name: str) -> None:
    assert read(allowed / name, allowed) == b"a: b"
    assert read(allowed / name, allowed.parent / "to") == b"a: b", "the directory may be a link itself"


@pytest.mark.parametrize(
    "name", ["out", "../admin-token", "../credentials-of-others", "out-of-all/etc/passwd", ".", "..", "../none"]
)
def test_what_lies_elsewhere_is_refused_without_a_word_of_where(allowed: Path, name: str) -> None:
    with pytest.raises(GateRefused) as refused:
        read(allowed / name, allowed)
    assert refused.value.message.startswith("its file: is not below a directory for credentials; move the file into")
    assert str(allowed.parent) not in refused.value.message


def test_without_directories_nothing_is_read(allowed: Path) -> None:
    with pytest.raises(GateRefused):
        read_credentials(str(allowed / "own"), (), "its file", 100)


def test_what_others_can_read_or_is_no_file_is_refused(allowed: Path) -> None:
    (allowed / "own").chmod(0o640)
    with pytest.raises(InvalidConfig, match=r"its file: others can read it \(mode 640\): chmod 600 it"):
        read(allowed / "own", allowed)
    os.mkfifo(allowed / "pipe", 0o600)
    for name, why in (("pipe", "expected a regular file"), ("inner", "cannot be read"), ("none", "cannot be read")):
        with pytest.raises(InvalidConfig, match=f"its file: {why}"):
            read(allowed / name, allowed)


def test_more_than_may_be_is_seen_and_not_read_whole(allowed: Path) -> None:
    (allowed / "own").write_bytes(b"x" * 50)
    assert len(read(allowed / "own", allowed, most=10)) == 11
