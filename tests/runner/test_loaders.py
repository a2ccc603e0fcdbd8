"""One contract for every format: what `load_model` returns knows its signature and answers as its framework does."""

import numpy as np
import pytest

from hyperion.runner.load import load_model
from hyperion.runner.model import LoadedModel
from hyperion.runner.warmup import warm_up
from hyperion.schema.errors import Unsupported
from hyperion.schema.model import ModelOptions
from tests.runner.trained import MAKERS, Case

# Old ways that these libraries still serve, and a training that stops early on purpose.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:mlflow"),
]
Pair = tuple[Case, LoadedModel]


@pytest.fixture(scope="session", params=MAKERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A trained model, and what the loader made of its file."""
    case = MAKERS[request.param](tmp_path_factory.mktemp(request.param))
    return case, load_model(case.spec)


def feed(case: Case, start: int, count: int) -> dict[str, np.ndarray]:
    """Rows as the loop hands them over: contiguous and read-only."""
    rows = np.ascontiguousarray(case.rows[start : start + count])
    rows.flags.writeable = False
    return {case.signature.inputs[0].name: rows}


def test_the_signature_and_the_platform_come_from_the_model_itself(pair: Pair) -> None:
    case, model = pair
    assert model.signature == case.signature
    assert model.platform == case.platform


@pytest.mark.parametrize("count", [1, 7])
def test_it_answers_a_batch_as_its_own_framework_does(pair: Pair, count: int) -> None:
    case, model = pair
    inputs = feed(case, 60, count)
    answer = model.predict(inputs, ())
    expected = case.expect(inputs[case.signature.inputs[0].name])
    assert list(answer) == [spec.name for spec in case.signature.outputs]
    for name, array in answer.items():
        assert len(array) == count
        if array.dtype.kind == "O":
            assert array.tolist() == expected[name].tolist()
        else:
            np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5)


def test_a_batch_answers_each_row_as_if_it_were_alone(pair: Pair) -> None:
    case, model = pair
    together = model.predict(feed(case, 48, 5), ())
    for row in range(5):
        alone = model.predict(feed(case, 48 + row, 1), ())
        for name, array in alone.items():
            if array.dtype.kind == "O":
                assert array[0] == together[name][row]
            else:
                np.testing.assert_allclose(array[0], together[name][row], rtol=1e-4, atol=1e-5)


def test_only_the_outputs_that_were_asked_for_come_back(pair: Pair) -> None:
    case, model = pair
    for spec in case.signature.outputs:
        assert list(model.predict(feed(case, 0, 2), (spec.name,))) == [spec.name]


def test_every_bucket_is_warmed_up(pair: Pair) -> None:
    _, model = pair
    lines: list[str] = []
    took = warm_up(model, ModelOptions(max_batch_size=16), lines.append)
    assert lines == []
    assert list(took) == [1, 8, 16]
    assert all(seconds > 0 for seconds in took.values())


def test_a_model_that_does_not_stream_says_so(pair: Pair) -> None:
    case, model = pair
    assert not case.signature.streams
    with pytest.raises(Unsupported):
        next(iter(model.stream(feed(case, 0, 1))))
