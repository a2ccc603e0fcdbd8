"""A push says exactly what lies at a path: the same digest as serving it, every file, and where it came from."""

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelOptions
from hyperion.schema.registry import FileEntry, Manifest
from hyperion.store.blobs.directory import LocalBlobs
from hyperion.store.versions.digest import digest_of
from hyperion.store.versions.manifest import check_manifest, decode_manifest, encode_manifest, runs_code
from hyperion.store.versions.push import Details, Pushed, prepare_push, put_files
from tests.services import needs_program
from tests.store.layout import PYTHON_MODEL, lay_out, only

PBTXT = 'backend: "onnxruntime"\n'


def push(path: Path, **given: Any) -> Pushed:
    return prepare_push("m", "7", path, Details(git_commit="", **given.pop("details", {})), **given)


def refuse(path: Path, **given: Any) -> str:
    with pytest.raises(ModelRefused) as caught:
        push(path, **given)
    return caught.value.message


@pytest.mark.parametrize("file", ["m.onnx", "m.ubj", "m.json", "m.txt", "m.skops", "m.joblib", "m.pkl"])
def test_a_file_is_pushed_with_the_digest_that_it_is_served_with(files: Path, file: str) -> None:
    pushed = push(files / file)
    served = only(files / file, ModelOptions(trust_pickle=True))
    manifest = pushed.manifest
    assert (manifest.digest, manifest.format, manifest.entry) == (served.digest, served.format, file)
    assert [(entry.path, entry.size_bytes) for entry in manifest.files] == [(file, (files / file).stat().st_size)]
    assert pushed.sources == ((manifest.files[0], files / file),)
    assert not manifest.options.trust_pickle
    assert runs_code(manifest) == (file in ("m.joblib", "m.pkl"))
    assert manifest.libraries


def test_a_directory_is_pushed_with_all_its_files_and_options(tmp_path: Path) -> None:
    options = "max_batch_size: 4\nlabels: {team: risk}\n"
    path = lay_out(tmp_path / "d", {"model.py": PYTHON_MODEL, "sub/w.bin": b"123", "hyperion.yaml": options})
    manifest = push(path).manifest
    assert [entry.path for entry in manifest.files] == ["hyperion.yaml", "model.py", "sub/w.bin"]
    assert (manifest.format, manifest.entry, manifest.digest) == ("python", "", digest_of(path))
    assert (manifest.options.max_batch_size, manifest.options.labels) == (4, {"team": "risk"})


def test_what_changes_by_itself_is_left_out(tmp_path: Path) -> None:
    path = lay_out(tmp_path / "d", {"model.py": PYTHON_MODEL})
    digest = push(path).manifest.digest
    lay_out(path, {".git/HEAD": "x", "__pycache__/model.pyc": b"x", "sub/__pycache__/a.pyc": b"x"})
    assert push(path).manifest.digest == digest


def test_details_are_written_down(tmp_path: Path) -> None:
    path = lay_out(tmp_path / "d", {"model.py": PYTHON_MODEL})
    details = Details(
        metrics={"auc": 0.91},
        tags={"stage": "beta"},
        parameters={"depth": "3"},
        git_commit="abc",
        data_version="dvc:md5:1",
        parent="m@6",
        owner="ada",
        risk_class="limited",
        intended_use="fraud",
        card="# Fraud",
        created_by="ada",
        created_at=12.5,
    )
    manifest = prepare_push("m", "7", path, details).manifest
    assert (manifest.model, manifest.version, manifest.metrics, manifest.tags) == (
        "m",
        "7",
        {"auc": 0.91},
        {"stage": "beta"},
    )
    assert (manifest.lineage.git_commit, manifest.lineage.data_version, manifest.lineage.parent) == (
        "abc",
        "dvc:md5:1",
        "m@6",
    )
    assert (manifest.owner, manifest.risk_class, manifest.card, manifest.created_at) == (
        "ada",
        "limited",
        "# Fraud",
        12.5,
    )
    assert decode_manifest(encode_manifest(manifest)) == manifest


def test_a_repository_of_several_models_says_which_to_push(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "r", {"a/model.py": PYTHON_MODEL, "b/model.py": PYTHON_MODEL})
    message = refuse(root)
    assert f"{root}/a, {root}/b" in message
    assert push(root / "b").manifest.files[0].path == "model.py"


def test_a_triton_model_of_several_versions_says_how_to_choose(tmp_path: Path, files: Path) -> None:
    onnx = files / "m.onnx"
    versions = {"config.pbtxt": PBTXT + "version_policy: {all: {}}", "1/model.onnx": onnx, "2/model.onnx": onnx}
    root = lay_out(tmp_path / "t", versions)
    assert refuse(root).endswith("versions 1, 2 of a model lie here; name one with --source-version")
    assert "it holds 1, 2" in refuse(root, source_version="3")
    manifest = push(root, source_version="2").manifest
    assert (manifest.version, manifest.entry, manifest.digest) == ("7", "model.onnx", digest_of(root / "2"))


def test_an_mlserver_model_is_pushed_with_its_description(tmp_path: Path, files: Path) -> None:
    settings = '{"implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "./w/model.joblib"}}'
    root = lay_out(tmp_path / "s", {"model-settings.json": settings, "w/model.joblib": files / "m.joblib"})
    manifest = push(root).manifest
    assert (manifest.format, manifest.entry, manifest.digest) == ("sklearn", "w/model.joblib", digest_of(root))


def test_external_weights_of_an_onnx_file_are_pushed_with_it(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights])
    folder = lay_out(tmp_path / "x", {"other.txt": "no part of it"})
    onnx.save(helper.make_model(graph), folder / "m.onnx", save_as_external_data=True, location="w.bin")
    manifest = push(folder / "m.onnx").manifest
    assert [entry.path for entry in manifest.files] == ["m.onnx", "w.bin"]
    assert manifest.digest == only(folder / "m.onnx").digest


def test_a_link_inside_becomes_the_file_and_a_link_outside_is_refused(tmp_path: Path) -> None:
    path = lay_out(tmp_path / "d", {"model.py": PYTHON_MODEL, "real.bin": b"12", "folder/x": b"1"})
    os.symlink("real.bin", path / "link.bin")
    entries = {entry.path: entry for entry in push(path).manifest.files}
    assert entries["link.bin"].sha256 == entries["real.bin"].sha256
    os.symlink("folder", path / "other")
    assert "symbolic link to a directory" in refuse(path)
    os.unlink(path / "other")
    os.symlink("/etc/hostname", path / "out")
    assert "leads out of the model's directory" in refuse(path)


def test_a_file_that_changes_between_reading_and_sending_is_refused(tmp_path: Path) -> None:
    path = lay_out(tmp_path / "d", {"model.py": PYTHON_MODEL})
    pushed = push(path)
    (path / "model.py").write_text(PYTHON_MODEL.replace("inputs)", "other )"))
    with pytest.raises(ModelRefused, match="changed while it was read"):
        put_files(LocalBlobs(tmp_path / "blobs"), pushed.sources)


def test_the_commit_around_a_model_is_noted_and_marked_where_files_have_changed(tmp_path: Path) -> None:
    git = needs_program("git", package="git")
    path = lay_out(tmp_path / "repo", {"model.py": PYTHON_MODEL})
    name = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "."), (*name, "commit", "-q", "-m", "First")):
        subprocess.run([git, "-C", path, *words], check=True)
    head = subprocess.run([git, "-C", path, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    commit = head.stdout.strip()
    assert prepare_push("m", "1", path).manifest.lineage.git_commit == commit
    lay_out(path, {"untracked.bin": b"1"})
    assert prepare_push("m", "1", path).manifest.lineage.git_commit == commit
    (path / "model.py").write_text(PYTHON_MODEL + "\n")
    assert prepare_push("m", "1", path).manifest.lineage.git_commit == f"{commit}-dirty"
    outside = lay_out(tmp_path / "outside", {"model.py": PYTHON_MODEL})
    assert prepare_push("m", "1", outside).manifest.lineage.git_commit == ""


A = FileEntry("model.py", "a" * 64, 1)
B = FileEntry("w", "b" * 64, 1)


def a_manifest(tmp_path: Path) -> Manifest:
    return push(lay_out(tmp_path / "d", {"model.py": PYTHON_MODEL})).manifest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "../x"}, "manifest: model: expected"),
        ({"version": "a/b"}, "manifest: version: expected"),
        ({"format": "exe"}, "manifest: format: expected one of onnx"),
        ({"digest": "sha256:00"}, "manifest: digest: expected the digest of the files"),
        ({"files": ()}, "manifest: files: expected 1 to 10000 files, got 0"),
        ({"files": (B, A)}, "paths in order"),
        ({"files": (A, A)}, "paths in order"),
        ({"files": (FileEntry("../model.py", "a" * 64, 1),)}, "without '.' and '..'"),
        ({"files": (FileEntry("/etc/passwd", "a" * 64, 1),)}, "without '.' and '..'"),
        ({"files": (FileEntry("a\nb", "a" * 64, 1),)}, "printable"),
        ({"files": (FileEntry("model.py", "A" * 64, 1),)}, "64 hexadecimal digits"),
        ({"files": (FileEntry("model.py", "a" * 64, -1),)}, "size_bytes"),
        ({"files": (A, FileEntry("model.py/x", "a" * 64, 1))}, "no file that is a directory"),
        ({"entry": "sub"}, "manifest: entry: expected a directory with model.py"),
        ({"options": ModelOptions(trust_pickle=True)}, "cannot grant trust to itself"),
        ({"options": ModelOptions(env={"LD_PRELOAD": "x"})}, "decides which code the runner loads"),
        ({"options": ModelOptions(max_batch_size=0)}, "options: max_batch_size: expected 1"),
        ({"settings": {"warmup_shapes": "["}}, "settings.warmup_shapes"),
        ({"settings": {"outputs": "__class__"}}, "settings.outputs"),
        ({"metrics": {"auc": float("nan")}}, "metrics.auc: expected a finite number"),
        ({"tags": {"": "x"}}, "manifest: tags"),
        ({"card": "x" * 300_000}, "manifest: card"),
        ({"owner": "a\0"}, "manifest: owner"),
    ],
)
def test_a_manifest_from_elsewhere_is_held_to_every_rule(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    good = a_manifest(tmp_path)
    assert check_manifest(good) is good
    with pytest.raises(ModelRefused) as caught:
        check_manifest(msgspec.structs.replace(good, **change))
    assert said in caught.value.message


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.data())
def test_bytes_that_are_no_manifest_are_refused_and_nothing_else(tmp_path: Path, junk: bytes, data: Any) -> None:
    good = encode_manifest(a_manifest(tmp_path))
    at = data.draw(st.integers(0, len(good)))
    with contextlib.suppress(ModelRefused):
        check_manifest(decode_manifest(good[:at] + junk + good[at + len(junk) :]))
