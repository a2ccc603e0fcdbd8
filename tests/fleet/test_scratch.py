"""Private directories: whatever a stranger has built in there, it goes, and nothing beside it does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyperion.fleet import scratch
from hyperion.fleet.scratch import is_over, make_scratch, remove_tree, set_aside

MIB = 1 << 20


def test_a_scratch_directory_is_empty_and_private_whatever_was_there(tmp_path: Path) -> None:
    path = tmp_path / "scratch"
    path.mkdir(mode=0o777)
    (path / "left").write_text("by a predecessor")
    make_scratch(path)
    assert list(path.iterdir()) == []
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_link_in_place_of_the_directory_goes_and_its_target_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "kept").touch()
    (tmp_path / "scratch").symlink_to(target)
    make_scratch(tmp_path / "scratch")
    assert not (tmp_path / "scratch").is_symlink()
    assert (target / "kept").exists()


def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    outside, scratch = tmp_path / "outside", tmp_path / "scratch"
    outside.mkdir()
    (outside / "kept").touch()
    (scratch / "inner").mkdir(parents=True)
    for place in (scratch, scratch / "inner"):
        (place / "directory").symlink_to(outside)
        (place / "file").symlink_to(outside / "kept")
        (place / "nowhere").symlink_to(tmp_path / "nowhere")
    remove_tree(scratch)
    assert not scratch.exists()
    assert (outside / "kept").exists()


def test_a_tree_deeper_than_any_path_or_stack_is_removed(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(scratch)
        for _ in range(3_000):
            os.mkdir("directory")
            os.chdir("directory")
        Path("last").touch()
    finally:
        os.fchdir(here)
        os.close(here)
    remove_tree(scratch)
    assert not scratch.exists()


def test_directories_without_permissions_are_removed(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    inner = scratch / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    for path in (inner, inner.parent, scratch):
        path.chmod(0)
    remove_tree(scratch)
    assert not scratch.exists()


def test_pipes_sockets_and_what_is_not_there_are_no_trouble(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    os.mkfifo(scratch / "pipe")
    remove_tree(scratch)
    remove_tree(scratch)
    assert not scratch.exists()


def test_what_is_set_aside_makes_room_at_once(tmp_path: Path) -> None:
    path = tmp_path / "scratch"
    make_scratch(path)
    (path / "file").touch()
    aside = set_aside(path, 1)
    assert not path.exists()
    assert (aside / "file").exists()
    assert not set_aside(path, 2).exists()


@pytest.mark.parametrize(("size", "over"), [(MIB, False), (3 * MIB, True)])
def test_the_space_of_files_counts_wherever_they_lie(tmp_path: Path, size: int, over: bool) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(os.urandom(size))
    assert is_over(tmp_path, 2 * MIB) is over


def test_a_sparse_file_takes_no_space_and_many_empty_ones_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scratch.MOST_ENTRIES >= 10_000
    monkeypatch.setattr(scratch, "MOST_ENTRIES", 1_000)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert not is_over(tmp_path, 2 * MIB)
    assert not is_over(tmp_path, 1 << 40)
    for number in range(1_000):
        os.close(os.open(tmp_path / str(number), os.O_CREAT))
    assert is_over(tmp_path, 1 << 40)


def test_a_directory_that_cannot_be_looked_at_counts_as_nothing(tmp_path: Path) -> None:
    assert not is_over(tmp_path / "gone", 0)


def test_files_that_come_and_go_hide_none_of_the_others(tmp_path: Path) -> None:
    """Each look counts all that stays, whatever a stranger removes while it is under way."""
    (tmp_path / "large").write_bytes(b"x" * (3 * MIB))
    come_and_go = """
import os
print(flush=True)
while True:
    for number in range(50):
        open(str(number), "w").close()
    for number in range(50):
        os.unlink(str(number))
"""
    with subprocess.Popen([sys.executable, "-c", come_and_go], cwd=tmp_path, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        try:
            assert all(is_over(tmp_path, 2 * MIB) for _ in range(10_000))
        finally:
            stranger.kill()
