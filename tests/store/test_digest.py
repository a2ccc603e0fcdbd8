"""The digest changes with every byte, name and file of a model, and with nothing else."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperion.schema.errors import ModelRefused
from hyperion.store.versions import digest as digest_module
from hyperion.store.versions.digest import digest_of, digest_of_files
from tests.store.layout import lay_out

NAMES = st.text("abcXYZ09 ._-é", min_size=1, max_size=8).filter(lambda name: name.strip(".") and name != ".git")
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join), st.binary(max_size=20), min_size=1, max_size=6
).filter(lambda tree: not any(b.startswith(a + "/") for a in tree for b in tree))
ONCE = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def fresh(root: Path, tree: dict[str, bytes]) -> Path:
    """A new directory under `root` with the files of `tree`, written in the order given."""
    return lay_out(root / str(len(os.listdir(root))), {**tree})


def test_a_file_s_digest_is_what_sha256sum_prints(tmp_path: Path) -> None:
    path = lay_out(tmp_path, {"m": b"x" * 3_000_000}) / "m"
    assert digest_of(path) == "sha256:" + hashlib.sha256(b"x" * 3_000_000).hexdigest()


@ONCE
@given(TREES, st.randoms(use_true_random=False))
def test_the_same_files_have_one_digest_in_any_order_and_place(
    tmp_path: Path, tree: dict[str, bytes], random: st.DataObject
) -> None:
    names = list(tree)
    random.shuffle(names)  # type: ignore[attr-defined]
    assert digest_of(fresh(tmp_path, tree)) == digest_of(fresh(tmp_path, {name: tree[name] for name in names}))


@ONCE
@given(TREES, st.data())
def test_a_changed_byte_a_new_name_an_added_or_a_removed_file_changes_the_digest(
    tmp_path: Path, tree: dict[str, bytes], data: st.DataObject
) -> None:
    root = fresh(tmp_path, tree)
    seen = {digest_of(root)}
    name = data.draw(st.sampled_from(sorted(tree)))
    path = root / name
    content = bytearray(tree[name] or b"\0")
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1
    path.write_bytes(content)
    seen.add(digest_of(root))
    path.write_bytes(content + b"\0")
    seen.add(digest_of(root))
    path.rename(path.with_name(path.name + "+"))
    seen.add(digest_of(root))
    (root / "one more").write_bytes(b"")
    seen.add(digest_of(root))
    (root / "one more").unlink()
    path.with_name(path.name + "+").unlink()
    seen.add(digest_of(root))
    assert len(seen) == 6


def test_content_cannot_move_between_files_unseen(tmp_path: Path) -> None:
    assert digest_of(fresh(tmp_path, {"a": b"1", "b": b"2"})) != digest_of(fresh(tmp_path, {"a": b"2", "b": b"1"}))
    assert digest_of(fresh(tmp_path, {"a/b": b"1"})) != digest_of(fresh(tmp_path, {"b/a": b"1"}))


def test_a_git_checkout_does_not_count(tmp_path: Path) -> None:
    root = fresh(tmp_path, {"a": b"1"})
    before = digest_of(root)
    lay_out(root, {".git/index": b"x"})
    assert digest_of(root) == before


def test_of_named_files_only_these_count(tmp_path: Path) -> None:
    root = fresh(tmp_path, {"a": b"1", "b": b"2", "c": b"3"})
    before = digest_of_files(root, ("a", "b"))
    assert before == digest_of_files(root, ("b", "a", "b")) == digest_of(fresh(tmp_path, {"a": b"1", "b": b"2"}))
    (root / "c").write_bytes(b"4")
    assert digest_of_files(root, ("a", "b")) == before
    (root / "b").write_bytes(b"4")
    assert digest_of_files(root, ("a", "b")) != before


def test_a_link_that_stays_inside_counts_by_its_target(tmp_path: Path) -> None:
    root = fresh(tmp_path, {"v1/m": b"1", "v2/m": b"1"})
    (root / "current").symlink_to("v1")
    (root / "m").symlink_to("v1/m")
    before = digest_of(root)
    (root / "m").unlink()
    (root / "m").symlink_to("v2/m")
    assert digest_of(root) != before


@pytest.mark.parametrize(
    ("target", "says"),
    [("../secret", "leads out"), ("/etc/passwd", "leads out"), ("gone", "to nothing"), ("m", "to nothing")],
)
def test_a_link_that_leads_out_or_nowhere_is_refused(tmp_path: Path, target: str, says: str) -> None:
    lay_out(tmp_path, {"secret": b"x"})
    root = lay_out(tmp_path / "m", {"a": b"1"})
    (root / "m").symlink_to(target)
    with pytest.raises(ModelRefused, match=says):
        digest_of(root)


def test_a_pipe_in_a_directory_is_refused_without_hanging(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelRefused, match="pipe: a device, pipe or socket"):
        digest_of(tmp_path)


def test_a_line_break_in_a_file_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="line break"):
        digest_of(fresh(tmp_path, {"a\nb": b"1"}))


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="gone: cannot be read: no such file"):
        digest_of(tmp_path / "gone")


def test_a_directory_with_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest_module, "MAX_FILES", 3)
    digest_of(fresh(tmp_path, dict.fromkeys("abc", b"")))
    with pytest.raises(ModelRefused, match="more than 3 files"):
        digest_of(fresh(tmp_path, dict.fromkeys("abcd", b"")))
