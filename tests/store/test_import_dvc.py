"""The hash that DVC noted becomes the data version, only while the data here has it: tried with DVC itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyperion.schema.errors import ModelRefused
from hyperion.store.versions.import_dvc import prepare_dvc_push, read_dvc, resolve_data_version, verify_dvc
from hyperion.store.versions.push import Details
from tests.services import needs_installed, needs_program
from tests.store.layout import PYTHON_MODEL, lay_out

needs_installed("dvc", extra="tests")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Git and DVC repository with a data set, a file of it with Windows' line ends, and a model."""
    git = needs_program("git", package="git")
    root = lay_out(
        tmp_path_factory.mktemp("dvc"),
        {
            "data/train.csv": "a,b\n1,2\n",
            "data/sub/windows.csv": "a\r\nb\r\n",
            "data/é.csv": "x",
            "data/sub.csv": "y",
            "one.csv": "1\n",
            "model/model.py": PYTHON_MODEL,
        },
    )
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(root / ".site")}
    for name in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{name}_NAME": "a", f"GIT_{name}_EMAIL": "a@b"}
    dvc = (sys.executable, "-m", "dvc")
    for command in (
        (git, "init", "-q"),
        (*dvc, "init", "-q"),
        (*dvc, "add", "-q", "data", "one.csv", "model"),
        (git, "add", "."),
        (git, "commit", "-q", "-m", "Track"),
    ):
        subprocess.run(command, cwd=root, env=environment, check=True)
    return root


def refuse(path: Path) -> str:
    with pytest.raises(ModelRefused) as caught:
        verify_dvc(read_dvc(path))
    return caught.value.message


@pytest.mark.parametrize("name", ["data", "one.csv", "data.dvc"])
def test_the_hash_of_what_dvc_tracks_is_its_data_version(repository: Path, name: str) -> None:
    noted = (repository / f"{name.removesuffix('.dvc')}.dvc").read_text().split("md5: ")[1].split()[0]
    assert resolve_data_version(f"dvc:{repository / name}") == f"dvc:md5:{noted}"
    assert resolve_data_version("s3://bucket/v3") == "s3://bucket/v3"
    assert resolve_data_version(f"dvc:md5:{noted}") == f"dvc:md5:{noted}"


def test_a_model_that_dvc_tracks_is_pushed_with_commit_and_hash(repository: Path) -> None:
    pushed = prepare_dvc_push("m", "1", repository / "model", Details())
    lineage = pushed.manifest.lineage
    assert lineage.data_version == read_dvc(repository / "model").data_version
    assert lineage.data_version.endswith(".dir")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True)
    assert lineage.git_commit == head.stdout.strip()
    assert lineage.source["kind"] == "dvc"
    assert lineage.source["file"] == "model.dvc"
    trained = prepare_dvc_push("m", "1", repository / "model", Details(data_version=f"dvc:{repository / 'data'}"))
    assert trained.manifest.lineage.data_version == read_dvc(repository / "data").data_version


def test_data_that_has_changed_is_refused_until_it_is_as_it_was(repository: Path) -> None:
    for path in (repository / "one.csv", repository / "data" / "sub" / "windows.csv"):
        tracked = repository / path.relative_to(repository).parts[0]
        before = path.read_bytes()
        path.write_bytes(before + b"more")
        message = refuse(tracked)
        assert "has changed since DVC noted its hash" in message
        assert f"`dvc add {tracked.name}`" in message
        path.write_bytes(before)
        verify_dvc(read_dvc(tracked))
    lay_out(repository / "data", {"new.csv": "1"})
    assert "has changed" in refuse(repository / "data")
    (repository / "data" / "new.csv").unlink()
    verify_dvc(read_dvc(repository / "data"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "DVC does not track it: there is no x.csv.dvc"),
        ("outs:\n- md5: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n  path: x.csv\n", "x.csv: has changed"),
        ("outs:\n- md5: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.dir\n  path: x.csv\n", "DVC tracks a directory of this name"),
        ("outs:\n- md5: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n  path: y.csv\n", "fetch it with `dvc pull y.csv`"),
        ("outs:\n- md5: abc\n  path: x.csv\n", "outs[0].md5: expected 32"),
        ("outs:\n- md5: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n  hash: blake3\n  path: x.csv\n", "outs[0].md5"),
        ("outs:\n- md5: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n  path: ../x.csv\n", "outs[0].path: expected the name"),
        ("outs:\n- md5: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n  path: /etc/passwd\n", "outs[0].path: expected the name"),
        ("outs:\n- md6: x\n", "unknown field 'md6'; did you mean \"md5\"?"),
        ("out:\n- md5: x\n", "line 1: unknown field 'out'; did you mean \"outs\"?"),
        ("outs: []\n", "expected a list of one output"),
        ("- x\n", "expected a mapping"),
    ],
)
def test_what_is_no_dvc_file_is_refused_by_field(tmp_path: Path, text: str | None, said: str) -> None:
    lay_out(tmp_path, {"x.csv": "1", **({"x.csv.dvc": text} if text is not None else {})})
    assert said in refuse(tmp_path / "x.csv")


def test_files_of_the_older_dvc_are_hashed_as_it_did(tmp_path: Path) -> None:
    import hashlib
    import json

    lay_out(tmp_path, {"a.txt": "1\r\n2\r\n", "d/b.txt": "1\r\n", "d/c.bin": b"\0\r\n"})
    unix = hashlib.md5(b"1\n2\n").hexdigest()
    listed = [
        {"md5": hashlib.md5(b"1\n").hexdigest(), "relpath": "b.txt"},
        {"md5": hashlib.md5(b"\0\r\n").hexdigest(), "relpath": "c.bin"},
    ]
    of_directory = hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    lay_out(tmp_path, {"a.txt.dvc": f"outs:\n- md5: {unix}\n  path: a.txt\n"})
    lay_out(tmp_path, {"d.dvc": f"outs:\n- md5: {of_directory}.dir\n  path: d\n"})
    verify_dvc(read_dvc(tmp_path / "a.txt"))
    verify_dvc(read_dvc(tmp_path / "d"))
    lay_out(tmp_path, {"a.txt.dvc": f"outs:\n- md5: {unix}\n  hash: md5\n  path: a.txt\n"})
    assert "has changed" in refuse(tmp_path / "a.txt")
