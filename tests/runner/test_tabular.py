"""Models of a table beyond the contract: declared inputs, columns by name, texts, and what the Boosters answer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skops import io

from hyperion.runner.formats.xgboost import decide_classes
from hyperion.runner.load import load_model
from hyperion.runner.model import LoadedModel
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import Signature, TensorSpec
from tests.runner.trained import spec_of

PREDICT = (TensorSpec("predict", "INT64", (-1,)),)


def load_estimator(directory: Path, estimator: Any, signature: Signature | None = None) -> LoadedModel:
    """Saves an estimator with skops, and loads it."""
    io.dump(estimator, directory / "model.skops")
    return load_model(spec_of("sklearn", directory / "model.skops", signature=signature))


def declare(*inputs: tuple[str, str, tuple[int, ...]]) -> Signature:
    """A declared signature with those inputs and the output `predict`."""
    return Signature(tuple(TensorSpec(*spec) for spec in inputs), PREDICT)


@pytest.fixture(scope="module")
def iris() -> Any:
    """A fitted classifier of four numbers."""
    return LogisticRegression(max_iter=300).fit(*load_iris(return_X_y=True))


def test_a_declared_name_and_number_type_are_served(tmp_path: Path, iris: Any) -> None:
    model = load_estimator(tmp_path, iris, declare(("rows", "FP64", (-1, -1))))
    assert model.signature == Signature((TensorSpec("rows", "FP64", (-1, 4)),), PREDICT)
    features = load_iris().data[::9]
    assert model.predict({"rows": features}, ())["predict"].tolist() == iris.predict(features).tolist()


def test_outputs_that_are_not_declared_are_not_served(tmp_path: Path, iris: Any) -> None:
    model = load_estimator(tmp_path, iris, declare(("X", "FP32", (-1, 4))))
    assert list(model.predict({"X": np.zeros((1, 4), np.float32)}, ())) == ["predict"]


def test_one_declared_input_per_column_is_stacked_in_the_declared_order(tmp_path: Path, iris: Any) -> None:
    names = ("a", "b", "c", "d")
    model = load_estimator(tmp_path, iris, declare(*((name, "FP64", (-1, 1)) for name in names)))
    features = load_iris().data[::9]
    columns = {name: features[:, [index]] for index, name in reversed(list(enumerate(names)))}
    assert model.predict(columns, ())["predict"].tolist() == iris.predict(features).tolist()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([("X", "FP32", (-1, 5))], 'input "X": declared FP32 [-1, 5], the model has [-1, 4]'),
        ([("X", "BYTES", (-1, 4))], 'input "X": declared BYTES [-1, 4], the model takes numbers'),
        ([("a", "FP32", (-1,)), ("b", "FP32", (-1,))], "2 inputs are declared, the model has 4 columns"),
        ([("a", "FP32", (-1,)), ("b", "FP32", (-1, 3))], 'input "b": declared FP32 [-1, 3], expected one column'),
    ],
)
def test_declared_inputs_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, iris: Any, inputs: list[Any], message: str
) -> None:
    with pytest.raises(ModelRefused) as caught:
        load_estimator(tmp_path, iris, declare(*inputs))
    assert message in caught.value.message


def test_a_declared_output_that_differs_is_refused(tmp_path: Path, iris: Any) -> None:
    declared = Signature((TensorSpec("X", "FP32", (-1, 4)),), (TensorSpec("predict", "FP32", (-1,)),))
    with pytest.raises(ModelRefused, match='output "predict": declared FP32'):
        load_estimator(tmp_path, iris, declared)


def test_a_pipeline_that_begins_with_a_vectorizer_takes_texts(tmp_path: Path) -> None:
    texts = ["cheap pills now", "win money now", "meeting at noon", "lunch with anna"]
    model = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(texts, ["spam", "spam", "ham", "ham"])
    loaded = load_estimator(tmp_path, model)
    assert loaded.signature.inputs == (TensorSpec("X", "BYTES", (-1,)),)
    assert loaded.signature.outputs[0] == TensorSpec("predict", "BYTES", (-1,))
    answer = loaded.predict(
        {"X": np.array([b"money now", "mittag \xfc".encode("latin-1") + b" lunch"], dtype=object)}, ()
    )
    assert answer["predict"].tolist() == ["spam", "ham"]


def test_a_cluster_model_predicts_and_a_scaler_transforms(tmp_path: Path) -> None:
    features = load_iris().data
    clusters = load_estimator(tmp_path, KMeans(3, n_init=1, random_state=0).fit(features))
    assert clusters.signature.outputs == (TensorSpec("predict", "INT32", (-1,)),)
    scaler = load_estimator(tmp_path, StandardScaler().fit(features))
    assert scaler.signature.outputs == (TensorSpec("transform", "FP64", (-1, 4)),)


def test_a_repository_chooses_the_output(tmp_path: Path, iris: Any) -> None:
    io.dump(iris, tmp_path / "m.skops")
    spec = spec_of("sklearn", tmp_path / "m.skops", settings={"outputs": "predict_log_proba"})
    model = load_model(spec)
    assert model.signature.outputs == (TensorSpec("predict_log_proba", "FP64", (-1, 3)),)
    with pytest.raises(ModelRefused, match="expected an estimator with transform"):
        load_model(spec_of("sklearn", tmp_path / "m.skops", settings={"outputs": "transform"}))


def test_an_estimator_that_is_not_fitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="is it fitted"):
        load_estimator(tmp_path, Ridge())


def test_columns_of_text_and_numbers_reach_a_column_transformer_by_name(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    frame = pandas.DataFrame({"country": ["DE", "FR", "DE", "FR"], "amount": [1.0, 2.0, 3.0, 4.0]})
    steps = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["country"]), remainder="passthrough")
    model = make_pipeline(steps, Ridge()).fit(frame, [1.0, 2.0, 2.0, 3.0])
    outputs = (TensorSpec("predict", "FP64", (-1,)),)
    # Declared in another order than that of training.
    inputs = (TensorSpec("amount", "FP64", (-1,)), TensorSpec("country", "BYTES", (-1,)))
    loaded = load_estimator(tmp_path, model, Signature(inputs, outputs))
    rows = {"amount": frame["amount"].to_numpy(), "country": np.array([b"DE", b"FR", b"DE", b"FR"], dtype=object)}
    np.testing.assert_allclose(loaded.predict(rows, ())["predict"], model.predict(frame))
    wrong = Signature((inputs[0], TensorSpec("land", "BYTES", (-1,))), outputs)
    with pytest.raises(ModelRefused, match='not the columns of the model: see "country"'):
        load_estimator(tmp_path, model, wrong)


def test_a_model_of_named_numeric_columns_takes_a_matrix_or_the_columns(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="needs pandas")
    data = load_diabetes(as_frame=True)
    frame = data.data[["bmi", "age"]]
    model = make_pipeline(make_column_transformer((StandardScaler(), ["age", "bmi"])), Ridge()).fit(frame, data.target)
    expected = model.predict(frame[:5])
    matrix = load_estimator(tmp_path, model)
    assert matrix.signature.inputs == (TensorSpec("X", "FP32", (-1, 2)),)
    np.testing.assert_allclose(
        matrix.predict({"X": frame[:5].to_numpy(np.float32)}, ())["predict"], expected, rtol=1e-5
    )
    inputs = tuple(TensorSpec(name, "FP64", (-1,)) for name in ("age", "bmi"))
    columns = load_estimator(tmp_path, model, Signature(inputs, ()))
    answer = columns.predict({name: frame[name][:5].to_numpy() for name in ("age", "bmi")}, ())
    np.testing.assert_allclose(answer["predict"], expected)


def test_decide_classes_gives_labels_and_two_probabilities_for_a_binary_classifier() -> None:
    answer = decide_classes(np.array([0.2, 0.5, 0.9], dtype=np.float32))
    assert answer["predict"].tolist() == [0, 0, 1]
    np.testing.assert_allclose(answer["predict_proba"], [[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]], rtol=1e-6)


@pytest.mark.parametrize("booster", ["gbtree", "gblinear", "dart"])
def test_every_kind_of_booster_answers_as_xgboost_does(tmp_path: Path, booster: str) -> None:
    xgboost = pytest.importorskip("xgboost", reason="needs xgboost")
    features, labels = load_breast_cancer(return_X_y=True)
    model = xgboost.XGBClassifier(n_estimators=3, booster=booster, n_jobs=1).fit(features[:, :5], labels)
    model.save_model(tmp_path / "m.ubj")
    loaded = load_model(spec_of("xgboost", tmp_path / "m.ubj"))
    rows = features[:20, :5].astype(np.float32)
    answer = loaded.predict({"X": rows}, ())
    assert answer["predict"].tolist() == model.predict(rows).tolist()
    np.testing.assert_allclose(answer["predict_proba"], model.predict_proba(rows), rtol=1e-6)


def test_a_missing_value_is_one_to_a_booster(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost", reason="needs xgboost")
    features, target = load_diabetes(return_X_y=True)
    features[::3, 2] = np.nan
    model = xgboost.XGBRegressor(n_estimators=5, n_jobs=1).fit(features, target)
    model.save_model(tmp_path / "m.json")
    loaded = load_model(spec_of("xgboost", tmp_path / "m.json"))
    rows = features[:6].astype(np.float32)
    assert loaded.signature.outputs == (TensorSpec("predict", "FP32", (-1,)),)
    np.testing.assert_allclose(loaded.predict({"X": rows}, ())["predict"], model.predict(rows), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:.*UBJSON")
def test_a_booster_by_mlflows_old_name_is_read_by_its_content(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost", reason="needs xgboost")
    features, target = load_diabetes(return_X_y=True)
    model = xgboost.train({"nthread": 1}, xgboost.DMatrix(features, target), 2)
    model.save_model(tmp_path / "model.xgb")
    loaded = load_model(spec_of("xgboost", tmp_path / "model.xgb"))
    expected = model.predict(xgboost.DMatrix(features[:3].astype(np.float32)))
    assert loaded.predict({"X": features[:3].astype(np.float32)}, ())["predict"].tolist() == expected.tolist()


def test_named_columns_of_a_booster_are_found_by_name(tmp_path: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="needs lightgbm")
    features, target = load_diabetes(return_X_y=True)
    data = lightgbm.Dataset(features[:, :2], target, feature_name=["age", "sex"])
    model = lightgbm.train({"verbosity": -1, "num_threads": 1}, data, 3)
    model.save_model(tmp_path / "m.txt")
    inputs = (TensorSpec("sex", "FP64", (-1,)), TensorSpec("age", "FP64", (-1,)))
    loaded = load_model(spec_of("lightgbm", tmp_path / "m.txt", signature=Signature(inputs, ())))
    answer = loaded.predict({"sex": features[:9, 1], "age": features[:9, 0]}, ())
    np.testing.assert_allclose(answer["predict"], model.predict(features[:9, :2]))
