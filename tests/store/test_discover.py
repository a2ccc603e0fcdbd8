"""What a PATH is: files, Python models, directories with one file, repositories; and why others are refused."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from hyperion.schema.errors import InvalidConfig, ModelRefused
from hyperion.schema.model import ModelOptions
from hyperion.store.repositories.discover import discover, split_repository
from hyperion.store.repositories.onnx_files import find_external_files
from hyperion.store.versions.digest import digest_of
from tests.services import needs_module
from tests.store.layout import lay_out, only, refusal

TRUSTING = ModelOptions(trust_pickle=True)
PYTHON = "class Model:\n    inputs = outputs = {'x': ('FP32', [-1])}\n    def predict(self, inputs): return inputs\n"
ZIP = b"PK\x03\x04 the rest of an archive"


@pytest.mark.parametrize(
    ("name", "loader"),
    [
        ("m.onnx", "onnx"),
        ("m.ubj", "xgboost"),
        ("m.json", "xgboost"),
        ("m.txt", "lightgbm"),
        ("m.skops", "sklearn"),
        ("m.joblib", "sklearn"),
        ("m.pkl", "sklearn"),
    ],
)
def test_a_model_file_is_known_by_its_name_and_content(files: Path, name: str, loader: str) -> None:
    spec = only(files / name, TRUSTING)
    assert (spec.name, spec.version, spec.format) == ("m", "1", loader)
    assert spec.path == str(files / name)
    assert spec.digest == digest_of(files / name)
    assert spec.signature is None


@pytest.mark.parametrize("name", ["m.pt2", "m.pt", "m.ts", "M.PT"])
def test_a_torch_archive_is_a_torch_model_when_it_is_trusted(tmp_path: Path, name: str) -> None:
    lay_out(tmp_path, {name: ZIP})
    assert only(tmp_path / name, TRUSTING).format == "torch"


@pytest.mark.parametrize("name", ["m.joblib", "m.pkl"])
def test_a_pickle_is_refused_until_it_is_trusted(files: Path, name: str) -> None:
    message = refusal(files / name)
    assert name in message
    assert "--trust-pickle" in message
    assert "skops" in message


@pytest.mark.parametrize("name", ["m.pt2", "m.pt", "m.ts"])
def test_torch_archives_are_refused_until_they_are_trusted(tmp_path: Path, name: str) -> None:
    assert "--trust-pickle" in refusal(lay_out(tmp_path, {name: ZIP}) / name)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.onnx", b"", "the file is empty"),
        ("m.onnx", b"<html>not found</html>", "not an ONNX model"),
        ("m.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull"),
        ("m.json", b'{"learner_": {}}', '"learner"'),
        ("m.json", b"[1, 2]", "XGBoost"),
        ("m.json", b"{", "XGBoost"),
        ("m.ubj", b"binf", "XGBoost"),
        ("m.txt", b"shopping list", "LightGBM"),
        ("m.skops", b"\x80\x04", "skops"),
        ("m.pt2", b"\x80\x04", "torch.export"),
        ("m.pt", b"\x80\x04", "TorchScript"),
        ("m.h5", b"x", "ONNX"),
        ("m.safetensors", b"x", "model.py"),
        ("m.bst", b"binf", "saved again"),
        ("m.model", b"", "the file is empty"),
        ("m.exe", b"x", ".onnx"),
        ("m", b"x", "config.pbtxt"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    message = refusal(lay_out(tmp_path, {name: content}) / name, TRUSTING)
    assert name in message
    assert says in message


def test_an_xgboost_json_is_known_whatever_the_order_of_its_keys(tmp_path: Path) -> None:
    spec = only(lay_out(tmp_path, {"m.json": ' {"version": [3, 0, 0], "learner": {}}'}) / "m.json")
    assert spec.format == "xgboost"
    assert only(lay_out(tmp_path, {"n.json": '{"extra": 1, "learner": {}}'}) / "n.json").format == "xgboost"


@pytest.mark.parametrize(
    ("name", "source", "loader"),
    [
        ("m.bst", "m.ubj", "xgboost"),
        ("m.bst", "m.txt", "lightgbm"),
        ("m.xgb", "m.json", "xgboost"),
        ("m.lgb", "m.txt", "lightgbm"),
    ],
)
def test_a_file_of_trees_is_known_by_its_content_alone(
    tmp_path: Path, files: Path, name: str, source: str, loader: str
) -> None:
    folder = lay_out(tmp_path / "trees", {name: files / source})
    assert only(folder / name).format == only(folder).format == loader


def test_a_missing_path_is_refused_as_it_was_written(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"no/such: no such file or directory"):
        discover(Path("no/such"), ModelOptions())


@pytest.mark.parametrize("name", ["-fraud.onnx", "fraud model.onnx", "préférence.onnx", "x" * 129 + ".onnx", "_.onnx"])
def test_a_file_name_that_cannot_be_a_model_name_asks_for_a_name(tmp_path: Path, files: Path, name: str) -> None:
    path = lay_out(tmp_path, {name: files / "m.onnx"}) / name
    assert "--name" in refusal(path)
    assert only(path, name="fraud").name == "fraud"


@pytest.mark.parametrize("name", ["", "a/b", "a b", ".hidden", "é", "a\n", "x" * 129])
def test_a_given_name_must_be_valid(files: Path, name: str) -> None:
    assert "--name" in refusal(files / "m.onnx", name=name)


def test_special_files_are_refused_without_hanging(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "regular file" in refusal(tmp_path / "pipe.onnx")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.onnx"))
        assert "socket.onnx" in refusal(tmp_path / "socket.onnx")


def test_weights_beside_an_onnx_file_are_part_of_its_digest(tmp_path: Path, files: Path) -> None:
    onnx = needs_module("onnx", extra="examples")
    path = lay_out(tmp_path, {"m.onnx": files / "m.onnx", "m.weights": b"\0" * 16}) / "m.onnx"
    alone = only(path).digest
    add_external_tensor(onnx, path, "m.weights")
    before = only(path).digest
    lay_out(tmp_path, {"m.weights": b"\0" * 15 + b"\1"})
    assert len({alone, before, only(path).digest}) == 3


@pytest.mark.parametrize(
    ("location", "says"), [("../m.weights", "outside"), ("none", "does not exist"), ("/etc/passwd", "relative")]
)
def test_weights_that_an_onnx_file_may_not_have_are_refused(
    tmp_path: Path, files: Path, location: str, says: str
) -> None:
    onnx = needs_module("onnx", extra="examples")
    root = lay_out(tmp_path / "in", {"m.onnx": files / "m.onnx", "../m.weights": b"\0" * 16})
    add_external_tensor(onnx, root / "m.onnx", location)
    message = refusal(root / "m.onnx")
    assert location in message
    assert says in message


@pytest.mark.parametrize(
    "rest", [b"", b"\x80", b"\x00", b"\x05abc", b"\x02\xff\xfe", b"\x02\n\n", b"\xff\x7fx", b"\x03abc"]
)
def test_weights_that_happen_to_look_like_a_reference_do_no_harm(tmp_path: Path, rest: bytes) -> None:
    path = lay_out(tmp_path, {"m.onnx": b"\x08\x07\x0a\x08location\x12" + rest, "abc": b"weights"}) / "m.onnx"
    assert find_external_files(path) == (("abc",) if rest == b"\x03abc" else ())


def add_external_tensor(onnx: Any, path: Path, location: str) -> None:
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer.add(name="outside", data_type=1, dims=[4], data_location=1)
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())


def test_a_directory_with_model_py_is_a_python_model(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "echo", {"model.py": PYTHON, "weights.onnx": b"\x08", "words.txt": "a"})
    spec = only(folder)
    assert (spec.name, spec.format, spec.path, spec.digest) == ("echo", "python", str(folder), digest_of(folder))


@pytest.mark.parametrize(
    "text",
    [
        "from somewhere import Model",
        "from somewhere import Net as Model",
        "from somewhere import *",
        "try:\n    import a\nexcept ImportError:\n    Model = None",
        "if True:\n    class Model: pass",
        "Model: type = int",
        "def Model(): pass",
    ],
)
def test_a_python_model_may_bind_its_class_in_any_way(tmp_path: Path, text: str) -> None:
    assert only(lay_out(tmp_path / "m", {"model.py": text})).format == "python"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class Net: pass", "no class Model"),
        ("def f():\n    class Model: pass", "no class Model"),
        ("class TritonPythonModel: pass", "pb_utils"),
        ("x = (", "model.py line 1"),
        ("x = '\0'", "model.py"),
        (b"\xff\xfe", "UTF-8"),
        ("(" * 5000 + ")" * 5000, "model.py"),
        (b" " * (1 << 20) + b" ", "1024 KiB"),
    ],
)
def test_a_model_py_without_a_model_is_refused_unrun(tmp_path: Path, text: str | bytes, says: str) -> None:
    assert says in refusal(lay_out(tmp_path / "m", {"model.py": text}))


def test_a_directory_with_one_model_file_is_that_model_under_the_directory_s_name(tmp_path: Path, files: Path) -> None:
    folder = lay_out(tmp_path / "fraud", {"model.onnx": files / "m.onnx", "README.md": "x", "requirements.txt": "onnx"})
    lay_out(folder, {"tokenizer.json": "{}", "tokenizer.model": b"\x0a\x0e", "vocab.txt": "[PAD]"})
    spec = only(folder)
    assert (spec.name, spec.format, spec.path) == ("fraud", "onnx", str(folder / "model.onnx"))
    assert spec.digest == digest_of(folder)


def test_two_model_files_in_a_directory_are_refused_by_name(tmp_path: Path, files: Path) -> None:
    message = refusal(lay_out(tmp_path / "m", {"a.onnx": files / "m.onnx", "b.ubj": files / "m.ubj"}))
    assert "a.onnx, b.ubj" in message


def test_a_directory_with_nothing_in_it_says_what_was_looked_for(tmp_path: Path) -> None:
    message = refusal(lay_out(tmp_path / "empty", {"notes.json": "{}", "a/b/c.md": "x"}))
    for known in (".onnx", ".ubj", "model.py", "config.pbtxt", "model-settings.json", "MLmodel"):
        assert known in message


def test_two_descriptions_at_once_are_refused(tmp_path: Path) -> None:
    message = refusal(lay_out(tmp_path / "m", {"config.pbtxt": "", "model-settings.json": "{}"}))
    assert "Triton" in message
    assert "MLServer" in message


def test_a_folder_of_models_is_a_repository_of_all_of_them(tmp_path: Path, files: Path) -> None:
    root = lay_out(
        tmp_path / "models",
        {
            "echo/model.py": PYTHON,
            "fraud/model.onnx": files / "m.onnx",
            "triton/1/model.onnx": files / "m.onnx",
            "nested/trees/model-settings.json": '{"implementation": "mlserver_xgboost.XGBoostModel"}',
            "nested/trees/model.json": files / "m.json",
            "__pycache__/x.pyc": b"",
            ".git/HEAD": "x",
            "README.md": "x",
        },
    )
    specs = discover(root, ModelOptions())
    assert [(spec.name, spec.format) for spec in specs] == [
        ("echo", "python"),
        ("fraud", "onnx"),
        ("trees", "xgboost"),
        ("triton", "onnx"),
    ]
    assert [path.name for path in split_repository(root)] == [spec.name for spec in specs]
    assert [only(path) for path in split_repository(root)] == list(specs)


def test_a_stranger_among_the_models_of_a_repository_is_refused_by_name(tmp_path: Path) -> None:
    message = refusal(lay_out(tmp_path / "models", {"echo/model.py": PYTHON, "data/train.csv": "x"}))
    assert message.startswith("data: nothing here that can be served")
    assert [path.name for path in split_repository(tmp_path / "models")] == ["data", "echo"]


def test_a_name_for_a_repository_of_two_models_is_refused(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "models", {"a/model.py": PYTHON, "b/model.py": PYTHON})
    assert "2 in this repository" in refusal(root, name="c")


def test_two_models_of_one_name_and_version_are_refused(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "models", {"a/model.py": PYTHON, "b/model.py": PYTHON, "b/hyperion.yaml": "name: a"})
    assert "both called 'a' version 1" in refusal(root)


def test_what_is_wrong_in_a_repository_is_said_with_the_model_s_folder(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "models", {"a/model.py": PYTHON, "b/model.py": "x = 1"})
    assert refusal(root).startswith("b: model.py")
    lay_out(root, {"b/model.py": PYTHON, "b/hyperion.yaml": "replica: 1"})
    assert refusal(root, error=InvalidConfig).startswith("b: hyperion.yaml line 1")


def test_one_file_s_path_may_be_a_link_and_keeps_its_own_name(tmp_path: Path, files: Path) -> None:
    (tmp_path / "current.onnx").symlink_to(files / "m.onnx")
    spec = only(tmp_path / "current.onnx")
    assert (spec.name, spec.digest) == ("current", digest_of(files / "m.onnx"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (ModelOptions(max_batch_size=0), "max_batch_size: expected 1 to 65536, got 0"),
        (ModelOptions(replicas=-1), "replicas"),
        (ModelOptions(max_delay_ms=float("nan")), "max_delay_ms"),
        (ModelOptions(device="tpu"), "device: expected auto, cpu, cuda or cuda:N"),
        (ModelOptions(buckets=(1, 128)), "buckets"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_read(
    files: Path, options: ModelOptions, says: str
) -> None:
    assert says in refusal(files / "m.onnx", options, InvalidConfig)
