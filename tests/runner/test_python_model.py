"""Python models beyond the contract: streams, bytes, what is wrong with a `model.py`, and answers that do not fit."""

import textwrap
from pathlib import Path

import numpy as np
import pytest

from hyperion.runner.load import load_model
from hyperion.runner.model import LoadedModel
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import TensorSpec
from tests.runner.trained import spec_of

HEAD = """
import numpy as np

class Model:
    inputs = {"x": ("FP32", [-1, 2])}
    outputs = {"y": ("FP32", [-1])}
"""
EXAMPLES = Path(__file__).parents[2] / "examples"


def load(directory: Path, source: str) -> LoadedModel:
    """Loads a `model.py` with that source."""
    (directory / "model.py").write_text(textwrap.dedent(source))
    return load_model(spec_of("python", directory))


def load_predict(directory: Path, body: str) -> LoadedModel:
    """Loads a model of two numbers a row whose predict returns the expression `body`."""
    return load(directory, f"{HEAD}    def predict(self, inputs):\n        return {body}\n")


def refuse(directory: Path, source: str) -> str:
    """The message of the refusal to load a `model.py` with that source."""
    with pytest.raises(ModelRefused) as caught:
        load(directory, source)
    assert str(directory) not in caught.value.message
    return caught.value.message


def test_a_stream_gives_its_parts_in_order_and_any_of_the_outputs(tmp_path: Path) -> None:
    model = load(
        tmp_path,
        """
        import numpy as np

        class Model:
            inputs = {"n": ("INT64", [-1])}
            outputs = {"i": ("INT64", [-1]), "text": ("BYTES", [-1])}

            def predict(self, inputs):
                return {"i": inputs["n"], "text": np.array([b"all"] * len(inputs["n"]), dtype=object)}

            def stream(self, inputs):
                for i in range(int(inputs["n"][0])):
                    yield {"i": [i]}
                yield {"text": np.array([b"done"], dtype=object)}
        """,
    )
    assert model.signature.streams
    parts = list(model.stream({"n": np.array([2])}))
    assert [{name: array.tolist() for name, array in part.items()} for part in parts] == [
        {"i": [0]},
        {"i": [1]},
        {"text": [b"done"]},
    ]


def test_a_stream_that_yields_anything_else_is_an_error_of_the_model(tmp_path: Path) -> None:
    model = load(
        tmp_path,
        f"{HEAD}    def predict(self, inputs): ...\n    def stream(self, inputs):\n        yield {{'z': [1]}}\n",
    )
    with pytest.raises(ValueError, match="stream must yield"):
        list(model.stream({"x": np.zeros((1, 2), np.float32)}))


def test_bytes_go_in_and_come_out_as_bytes(tmp_path: Path) -> None:
    model = load(
        tmp_path,
        """
        import numpy as np

        class Model:
            inputs = {"text": ("BYTES", [-1])}
            outputs = {"reversed": ("BYTES", [-1])}

            def predict(self, inputs):
                return {"reversed": np.array([text[::-1] for text in inputs["text"]], dtype=object)}
        """,
    )
    answer = model.predict({"text": np.array([b"ab\x00\xff", b""], dtype=object)}, ())
    assert answer["reversed"].tolist() == [b"\xff\x00ba", b""]


def test_numbers_become_the_declared_type_and_lists_become_arrays(tmp_path: Path) -> None:
    model = load_predict(tmp_path, '{"y": [float(row.sum()) for row in inputs["x"]], "extra": 1}')
    answer = model.predict({"x": np.ones((2, 2), np.float32)}, ())
    assert answer["y"].dtype == np.float32
    assert answer["y"].tolist() == [2, 2]
    assert list(answer) == ["y"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("[1.0]", "must return a dict of arrays by output name, it returned list"),
        ("{}", 'no output "y"; it returned nothing'),
        ('{"z": [1.0]}', 'no output "y"; it returned z'),
        ('{"y": np.zeros(3)}', r'output "y": expected shape \[2\], the model returned \[3\]'),
        ('{"y": np.zeros((2, 1))}', r'output "y": expected shape \[2\], the model returned \[2, 1\]'),
        ('{"y": np.array(["a", "b"])}', 'output "y": expected FP32, the model returned <U1'),
        ('{"y": np.zeros(2, complex)}', 'output "y": expected FP32, the model returned complex128'),
    ],
)
def test_an_answer_that_does_not_fit_names_the_output(tmp_path: Path, body: str, message: str) -> None:
    model = load_predict(tmp_path, body)
    with pytest.raises(ValueError, match=message):
        model.predict({"x": np.zeros((2, 2), np.float32)}, ())


def test_what_predict_raises_passes_through_with_its_line(tmp_path: Path) -> None:
    model = load_predict(tmp_path, '{"y": 1 / 0}')
    with pytest.raises(ZeroDivisionError) as caught:
        model.predict({"x": np.zeros((1, 2), np.float32)}, ())
    assert caught.traceback[-1].path == tmp_path / "model.py"


def test_a_fixed_first_axis_means_that_requests_are_not_merged(tmp_path: Path) -> None:
    model = load(
        tmp_path,
        """
        class Model:
            inputs = {"x": ("FP32", [3])}
            outputs = {"y": ("FP32", [])}
            def predict(self, inputs):
                return {"y": inputs["x"].sum()}
        """,
    )
    assert not model.signature.batched
    assert model.signature.outputs == (TensorSpec("y", "FP32", ()),)
    assert model.predict({"x": np.ones(3, np.float32)}, ())["y"] == 3


def test_modules_beside_it_are_imported_by_name_too_and_model_py_runs_once(tmp_path: Path) -> None:
    (tmp_path / "beside_model.py").write_text("import model\nstarts = model.starts\n")
    body = "    def predict(self, inputs):\n        return {'y': [len(beside_model.starts)] * len(inputs['x'])}\n"
    model = load(tmp_path, f"starts = []\nstarts.append(1)\nimport beside_model\n{HEAD}{body}")
    assert model.predict({"x": np.zeros((1, 2), np.float32)}, ())["y"].tolist() == [1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class Model:\n    def predict(self, inputs) return 1\n", "SyntaxError: expected ':' (model.py, line 2)"),
        ("import not_a_module_at_all\n", "missing package 'not_a_module_at_all'"),
        ("x = 1\n\n1 / 0\n", "ZeroDivisionError: division by zero (model.py, line 3)"),
        ("class Modell: ...\n", "model.py has no class Model"),
        ("Model = 3\n", "model.py has no class Model"),
        ("class Model: ...\n", "class Model has no method predict(inputs)"),
        ("class Model:\n    def predict(self, i): ...\n", "class Model needs inputs, such as {"),
        (HEAD.replace("outputs", "output") + "    def predict(self, i): ...\n", "class Model needs outputs"),
        (HEAD.replace("FP32", "float32", 1) + "    def predict(self, i): ...\n", "unknown datatype 'float32'"),
        (HEAD.replace('("FP32", [-1, 2])', '"FP32"') + "    def predict(self, i): ...\n", "expected (datatype, shape)"),
        (HEAD.replace("[-1, 2]", "[-2]") + "    def predict(self, i): ...\n", "expected a shape of sizes"),
        (HEAD.replace("[-1, 2]", "[None]") + "    def predict(self, i): ...\n", "expected a shape of sizes"),
        (HEAD.replace('"x"', "3") + "    def predict(self, i): ...\n", "the name must be a text"),
        (HEAD.replace('"FP32"', "[]", 1) + "    def predict(self, i): ...\n", "unknown datatype []"),
        (
            HEAD + "    def predict(self, i): ...\n    def load(self, d):\n        open(d / 'weights.npz')\n",
            "Model cannot be loaded: FileNotFoundError",
        ),
    ],
)
def test_a_broken_model_py_is_refused_with_its_line(tmp_path: Path, source: str, message: str) -> None:
    assert message in refuse(tmp_path, source)


def test_a_directory_without_model_py_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"there is no model\.py"):
        load_model(spec_of("python", tmp_path))


def test_the_traceback_of_a_broken_model_goes_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refuse(tmp_path, "def fail():\n    raise OSError('no such disk')\nfail()\n")
    assert "in fail" in capfd.readouterr().err


def test_the_text_example_finds_the_same_address_in_two_spellings() -> None:
    model = load_model(spec_of("python", EXAMPLES / "text_similarity"))
    left = np.array([b"Hyperion Street 12", b"shoes", b""], dtype=object)
    right = np.array([b"hyperion str. 12", b"coffee", b""], dtype=object)
    near, far, empty = model.predict({"a": left, "b": right}, ())["similarity"]
    assert near > 0.5 > far
    assert empty == 0


def test_the_stream_example_says_in_words_what_it_says_at_once() -> None:
    model = load_model(spec_of("python", EXAMPLES / "word_stream"))
    prompts = {"text_input": np.array([b"Alice", b"the"], dtype=object)}
    whole = model.predict(prompts, ())["text_output"].tolist()
    parts = [part["text_output"] for part in model.stream(prompts)]
    assert len(parts) > 2
    assert [b"".join(words).rstrip() for words in zip(*parts, strict=True)] == whole
