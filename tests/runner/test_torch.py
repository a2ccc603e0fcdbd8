"""PyTorch programs beyond the contract: several arguments and results, BF16, declared names, refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperion.runner.load import load_model
from hyperion.runner.model import LoadedModel
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from tests.runner.trained import TRUSTED, spec_of

torch = pytest.importorskip("torch", reason="needs torch (pip install torch)")
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def export(path: Path, function: Any, arguments: tuple[Any, ...], **options: Any) -> Path:
    """Saves a function of tensors as a torch.export archive."""

    class Program(torch.nn.Module):  # type: ignore[misc, name-defined]
        pass

    Program.forward = function
    torch.export.save(torch.export.export(Program(), arguments, **options), path)
    return path


def load(path: Path, **fields: Any) -> LoadedModel:
    """Loads an archive that is trusted."""
    return load_model(spec_of("torch", path, TRUSTED, **fields))


def test_a_tuple_of_results_gets_numbers_and_a_fixed_batch_is_not_merged(tmp_path: Path) -> None:
    def forward(self: Any, left: Any, right: Any) -> Any:
        return left + right, (left * right).sum()

    model = load(export(tmp_path / "m.pt2", forward, (torch.zeros(2, 3), torch.zeros(2, 3))))
    assert model.signature == Signature(
        (TensorSpec("left", "FP32", (2, 3)), TensorSpec("right", "FP32", (2, 3))),
        (TensorSpec("output_0", "FP32", (2, 3)), TensorSpec("output_1", "FP32", ())),
        batched=False,
    )
    ones = np.ones((2, 3), np.float32)
    answer = model.predict({"right": ones * 2, "left": ones}, ())
    assert answer["output_0"].tolist() == [[3.0] * 3] * 2
    assert answer["output_1"] == 12


def test_a_keyword_argument_is_an_input_and_bf16_travels_as_float32(tmp_path: Path) -> None:
    def forward(self: Any, x: Any, *, scale: Any) -> Any:
        return x * scale

    x, scale = (torch.zeros(2, dtype=torch.bfloat16) for _ in range(2))
    model = load(export(tmp_path / "m.pt2", forward, (x,), kwargs={"scale": scale}))
    assert [spec.name for spec in model.signature.inputs] == ["x", "scale"]
    assert model.signature.outputs == (TensorSpec("output", "BF16", (2,)),)
    answer = model.predict({"x": np.array([1.5, -2], np.float32), "scale": np.array([2, 4], np.float32)}, ())["output"]
    assert answer.dtype == np.float32
    assert answer.tolist() == [3, -8]


def test_a_program_that_writes_to_its_argument_leaves_the_request_alone(tmp_path: Path) -> None:
    def forward(self: Any, x: Any) -> Any:
        x.add_(1)
        return x * 2

    model = load(export(tmp_path / "m.pt2", forward, (torch.zeros(2),)))
    sent = np.zeros(2, np.float32)
    sent.flags.writeable = False
    assert model.predict({"x": sent}, ())["output"].tolist() == [2, 2]
    assert sent.tolist() == [0, 0]


def test_a_result_without_equal_among_the_datatypes_is_refused_by_name(tmp_path: Path) -> None:
    path = export(tmp_path / "m.pt2", lambda self, x: torch.complex(x, x), (torch.zeros(2),))
    with pytest.raises(ModelRefused, match='output "output" of the program'):
        load(path)


def test_torchscript_takes_its_names_from_the_repository_in_their_order(tmp_path: Path) -> None:
    traced = torch.jit.trace(torch.nn.Linear(3, 2).eval(), torch.zeros(1, 3))
    torch.jit.save(traced, tmp_path / "m.pt")
    signature = Signature((TensorSpec("INPUT__0", "FP32", (-1, 3)),), (TensorSpec("OUTPUT__0", "FP32", (-1, 2)),))
    model = load(tmp_path / "m.pt", signature=signature)
    rows = np.ones((4, 3), np.float32)
    expected = traced(torch.tensor(rows)).detach().numpy()
    np.testing.assert_allclose(model.predict({"INPUT__0": rows}, ())["OUTPUT__0"], expected, rtol=1e-6)
    two = Signature((*signature.inputs, TensorSpec("more", "FP32", (-1,))), signature.outputs)
    with pytest.raises(ModelRefused, match="2 inputs are declared, the program takes input"):
        load(tmp_path / "m.pt", signature=two)
    text = Signature((TensorSpec("INPUT__0", "BYTES", (-1,)),), signature.outputs)
    with pytest.raises(ModelRefused, match='"INPUT__0": PyTorch has no tensors of BYTES'):
        load(tmp_path / "m.pt", signature=text)


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    spec = spec_of("torch", tmp_path / "m.pt2", ModelOptions(trust_pickle=True, device="cuda"))
    with pytest.raises(ModelRefused, match="device cuda: this PyTorch sees no CUDA device"):
        load_model(spec)
