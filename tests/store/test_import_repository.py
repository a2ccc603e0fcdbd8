"""Whole repositories of other servers become versions under the names and numbers that they have there."""

from pathlib import Path

import pytest

from hyperion.schema.errors import ModelRefused
from hyperion.store.versions.import_repository import prepare_repository
from hyperion.store.versions.push import Details
from tests.store.layout import PYTHON_MODEL, lay_out


def test_every_version_of_every_model_is_imported(tmp_path: Path, files: Path) -> None:
    onnx = files / "m.onnx"
    settings = '{"name": "trees", "implementation": "mlserver_xgboost.XGBoostModel", "parameters": {"version": "v2"}}'
    root = lay_out(
        tmp_path / "r",
        {
            "a/config.pbtxt": 'backend: "onnxruntime"\nversion_policy: {all: {}}\n',
            "a/1/model.onnx": onnx,
            "a/3/model.onnx": onnx,
            "b/2/model.onnx": onnx,
            "c/model-settings.json": settings,
            "c/model.ubj": files / "m.ubj",
            "d/model.py": PYTHON_MODEL,
            "e/m.pkl": files / "m.pkl",
        },
    )
    found = [pushed.manifest for pushed in prepare_repository(root, Details(owner="ada", git_commit=""))]
    assert [(m.model, m.version, m.format, m.lineage.source["kind"]) for m in found] == [
        ("a", "1", "onnx", "triton"),
        ("a", "3", "onnx", "triton"),
        ("b", "2", "onnx", "triton"),
        ("trees", "v2", "xgboost", "mlserver"),
        ("d", "1", "python", "python"),
        ("e", "1", "sklearn", "file"),
    ]
    assert {m.owner for m in found} == {"ada"}
    assert not any(m.options.trust_pickle for m in found)


def test_nothing_is_imported_where_one_cannot_be_served(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "r", {"a/model.py": PYTHON_MODEL, "b/notes.txt": "x"})
    with pytest.raises(ModelRefused, match="b: nothing here that can be served"):
        next(iter(prepare_repository(root, Details())))
