"""What can run code when it is loaded is refused unless it is trusted, and what is broken is refused in words."""

import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from skops import io

from hyperion.runner.formats.sklearn_trees import check_trees
from hyperion.runner.load import load_model
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelSpec
from tests.runner.trained import TRUSTED, spec_of


class Payload:
    """Writes a file when it is unpickled: what an attacker would do."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.write_text, (self.mark, "executed")


def refuse(spec: ModelSpec) -> str:
    """The message of the refusal to load a spec."""
    with pytest.raises(ModelRefused) as caught:
        load_model(spec)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("suffix", ["pkl", "joblib", "pickle"])
def test_a_pickle_is_refused_without_being_opened(tmp_path: Path, suffix: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / f"model.{suffix}"
    path.write_bytes(pickle.dumps(Payload(mark)))
    message = refuse(spec_of("sklearn", path))
    assert "--trust-pickle" in message
    assert "skops.io.dump" in message
    assert not mark.exists()


def test_a_trusted_pickle_is_opened_and_must_hold_an_estimator(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(Payload(mark)))
    assert "expected an estimator" in refuse(spec_of("sklearn", path, TRUSTED))
    assert mark.read_text() == "executed"


def test_a_trusted_pickle_that_needs_an_absent_module_names_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cnot_installed_here\nThing\n.")
    assert "not installed here: not_installed_here" in refuse(spec_of("sklearn", path, TRUSTED))


def test_an_unknown_type_in_a_skops_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "neighbours.skops"
    io.dump(KNeighborsClassifier(algorithm="kd_tree").fit(*load_iris(return_X_y=True)), path)
    message = refuse(spec_of("sklearn", path))
    assert "sklearn.neighbors._kd_tree.KDTree" in message
    assert "--trust-pickle" in message
    assert load_model(spec_of("sklearn", path, TRUSTED)).signature.outputs[0].name == "predict"


@pytest.mark.parametrize(
    "estimator",
    [HistGradientBoostingClassifier(max_iter=3), MLPClassifier((4,), max_iter=5)],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_ordinary_estimators_in_skops_files_need_no_trust(tmp_path: Path, estimator: Any) -> None:
    features, labels = load_iris(return_X_y=True)
    io.dump(estimator.fit(features, labels), tmp_path / "m.skops")
    model = load_model(spec_of("sklearn", tmp_path / "m.skops"))
    answer = model.predict({"X": features.astype(np.float32)}, ("predict",))
    assert answer["predict"].tolist() == estimator.predict(features.astype(np.float32)).tolist()


def crafted_forest(field: str, value: int, node: int = 0) -> RandomForestRegressor:
    """A forest whose first tree has one field of one node changed."""
    forest = RandomForestRegressor(2, max_depth=3, random_state=0).fit(*load_iris(return_X_y=True))
    tree = forest.estimators_[0].tree_
    state = tree.__getstate__()
    state["nodes"][field][node] = value
    tree.__setstate__(state)
    return forest


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("left_child", 10_000, "below its parent"),
        ("right_child", 0, "below its parent"),
        ("left_child", -7, "below its parent"),
        ("feature", 4, "a feature that the model does not have"),
        ("feature", -3, "a feature that the model does not have"),
    ],
)
def test_a_tree_that_points_outside_of_itself_is_refused_before_it_is_used(
    tmp_path: Path, field: str, value: int, message: str
) -> None:
    io.dump(crafted_forest(field, value), tmp_path / "forest.skops")
    assert message in refuse(spec_of("sklearn", tmp_path / "forest.skops"))


def test_a_tree_that_is_wider_than_its_forest_is_refused(tmp_path: Path) -> None:
    forest = crafted_forest("feature", 3)
    forest.n_features_in_ = 2
    with pytest.raises(ValueError, match="a feature that the model does not have"):
        check_trees(forest)


@pytest.fixture(scope="module")
def histogram_model() -> HistGradientBoostingClassifier:
    """A model of histogram trees, to be copied before it is changed."""
    return HistGradientBoostingClassifier(max_iter=2).fit(*load_iris(return_X_y=True))


@pytest.mark.parametrize(("field", "value"), [("left", 60_000), ("right", 0), ("feature_idx", 4), ("bitset_idx", 5)])
def test_a_histogram_tree_that_points_outside_of_itself_is_refused(
    tmp_path: Path, histogram_model: HistGradientBoostingClassifier, field: str, value: int
) -> None:
    model = deepcopy(histogram_model)
    check_trees(model)
    nodes = model._predictors[0][0].nodes
    nodes["is_categorical"][0] = field == "bitset_idx"
    nodes[field][0] = value
    io.dump(model, tmp_path / "histogram.skops")
    assert "a tree refers to" in refuse(spec_of("sklearn", tmp_path / "histogram.skops"))


@pytest.mark.parametrize("name", ["model.skops", "model.joblib"])
def test_a_broken_file_is_refused_without_its_path(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"garbage")
    message = refuse(spec_of("sklearn", tmp_path / name, TRUSTED))
    assert f"cannot load {name}" in message
    assert str(tmp_path) not in message


@pytest.mark.parametrize(
    ("format_name", "package", "name"),
    [("torch", "torch", "m.pt2"), ("torch", "torch", "m.pt"), ("mlflow-pyfunc", "mlflow", ".")],
)
def test_programs_and_pyfuncs_are_refused_without_being_opened(
    tmp_path: Path, format_name: str, package: str, name: str
) -> None:
    pytest.importorskip(package, reason=f"needs {package}")
    message = refuse(spec_of(format_name, tmp_path / name))  # there is nothing at this path
    assert "--trust-pickle" in message
    assert "ONNX" in message


def test_a_state_dict_is_refused_even_with_trust(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch (pip install torch)")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    message = refuse(spec_of("torch", tmp_path / "weights.pt", TRUSTED))
    assert "a state dict or a pickled module is no program" in message


def test_a_torchscript_archive_without_a_signature_says_how_to_add_one(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch (pip install torch)")
    traced = torch.jit.trace(torch.nn.Linear(2, 2).eval(), torch.zeros(1, 2))
    torch.jit.save(traced, tmp_path / "m.pt")
    assert "signature.json" in refuse(spec_of("torch", tmp_path / "m.pt", TRUSTED))
    torch.jit.save(traced, tmp_path / "m.pt", _extra_files={"signature.json": "[]"})
    assert "signature.json needs inputs and outputs" in refuse(spec_of("torch", tmp_path / "m.pt", TRUSTED))


@pytest.mark.parametrize(("format_name", "name"), [("xgboost", "m.ubj"), ("xgboost", "m.json"), ("lightgbm", "m.txt")])
def test_broken_boosters_are_refused(tmp_path: Path, format_name: str, name: str) -> None:
    pytest.importorskip(format_name)
    (tmp_path / name).write_bytes(b"{]")
    message = refuse(spec_of(format_name, tmp_path / name))
    assert f"cannot load {name}" in message
    assert "position" in message or "file" in message  # the library's reason, not a line of its stack trace
    assert "[bt]" not in message
    assert str(tmp_path) not in message


def test_xgboosts_old_binary_format_is_refused_with_advice(tmp_path: Path) -> None:
    pytest.importorskip("xgboost")
    (tmp_path / "m.bst").write_bytes(b"binf")
    assert "save_model('model.ubj')" in refuse(spec_of("xgboost", tmp_path / "m.bst"))
