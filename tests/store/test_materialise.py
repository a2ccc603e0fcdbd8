"""A version is laid out whole or not at all, once, and from any kind of blob store."""

import os
import stat
import threading
from pathlib import Path

import pytest

from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelOptions
from hyperion.store.blobs.directory import LocalBlobs
from hyperion.store.versions.digest import digest_of
from hyperion.store.versions.materialise import discard, folder_of, materialise
from hyperion.store.versions.push import Details, Pushed, prepare_push, put_files
from tests.store.layout import PYTHON_MODEL, lay_out


class Elsewhere(LocalBlobs):
    """Blobs that are no files of this machine."""

    def path_or_none(self, sha256: str) -> Path | None:
        return None


@pytest.fixture
def pushed(tmp_path: Path) -> Pushed:
    source = lay_out(tmp_path / "source", {"model.py": PYTHON_MODEL, "sub/w.bin": b"123", "sub/same.bin": b"123"})
    return prepare_push("m", "7", source, Details(git_commit=""))


@pytest.mark.parametrize("kind", [LocalBlobs, Elsewhere])
def test_a_version_is_laid_out_as_it_was_pushed_and_cannot_be_written(
    tmp_path: Path, pushed: Pushed, kind: type[LocalBlobs]
) -> None:
    blobs, root = kind(tmp_path / "blobs"), tmp_path / "artifacts"
    put_files(blobs, pushed.sources)
    found = materialise(pushed.manifest, blobs, root, name="fraud", trust_pickle=True)
    folder = Path(found.root)
    assert folder == root / "m" / f"7-{pushed.manifest.digest[7:19]}"
    assert digest_of(folder) == pushed.manifest.digest == found.spec.digest
    assert (found.spec.name, found.spec.version, found.spec.path) == ("fraud", "7", found.root)
    assert found.spec.options == ModelOptions(trust_pickle=True)
    assert found.files == pushed.manifest.files
    assert {stat.S_IMODE((folder / file.path).stat().st_mode) for file in found.files} == {0o444}
    assert os.listdir(root / ".unfinished") == []
    links = (folder / "sub/w.bin").stat().st_nlink
    assert links == (3 if kind is LocalBlobs else 1)
    assert materialise(pushed.manifest, blobs, root, name="fraud", trust_pickle=True) == found


def test_a_version_with_a_missing_blob_leaves_nothing_behind(tmp_path: Path, pushed: Pushed) -> None:
    blobs, root = LocalBlobs(tmp_path / "blobs"), tmp_path / "artifacts"
    put_files(blobs, pushed.sources)
    assert blobs.delete(pushed.manifest.files[-1].sha256)
    with pytest.raises(ModelRefused, match="push the version that it belongs to again"):
        materialise(pushed.manifest, blobs, root, name="m")
    assert not folder_of(pushed.manifest, root).exists()
    assert os.listdir(root / ".unfinished") == []


def test_several_at_once_lay_out_one(tmp_path: Path, pushed: Pushed) -> None:
    blobs, root = LocalBlobs(tmp_path / "blobs"), tmp_path / "artifacts"
    put_files(blobs, pushed.sources)
    start, found = threading.Barrier(8), []

    def lay() -> None:
        start.wait()
        found.append(materialise(pushed.manifest, blobs, root, name="m"))

    threads = [threading.Thread(target=lay) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(str, found))) == 1
    assert digest_of(Path(found[0].root)) == pushed.manifest.digest
    assert os.listdir(root / ".unfinished") == []


def test_a_discarded_version_is_gone_and_can_be_laid_out_again(tmp_path: Path, pushed: Pushed) -> None:
    blobs, root = LocalBlobs(tmp_path / "blobs"), tmp_path / "artifacts"
    put_files(blobs, pushed.sources)
    found = materialise(pushed.manifest, blobs, root, name="m")
    assert discard(pushed.manifest, root)
    assert not Path(found.root).exists()
    assert os.listdir(root / "m") == []
    assert not discard(pushed.manifest, root)
    assert materialise(pushed.manifest, blobs, root, name="m") == found
