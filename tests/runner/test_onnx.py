"""ONNX beyond the contract: types, free axes, declared signatures, devices, broken files, and external data."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hyperion.runner.formats.onnx import choose_providers
from hyperion.runner.formats.onnx_file import read_references
from hyperion.runner.load import load_model
from hyperion.schema.errors import ModelRefused
from hyperion.schema.model import ModelOptions, Signature, TensorSpec
from tests.runner.trained import onnx_zipmap, spec_of

CPU = "CPUExecutionProvider"


def write_graph(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], initializers: Any = ()) -> Path:
    """Saves a graph as an ONNX file."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def write_identity(path: Path, element: int, shape: list[Any]) -> Path:
    """A model that answers with its input."""
    inputs = [helper.make_tensor_value_info("x", element, shape)]
    outputs = [helper.make_tensor_value_info("y", element, shape)]
    return write_graph(path, [helper.make_node("Identity", ["x"], ["y"])], inputs, outputs)


def refuse(path: Path, **fields: Any) -> str:
    """The message of the refusal to load a file."""
    with pytest.raises(ModelRefused) as caught:
        load_model(spec_of("onnx", path, **fields))
    assert str(path.parent) not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("element", "datatype", "values"),
    [
        (TensorProto.BOOL, "BOOL", np.array([[True], [False]])),
        (TensorProto.UINT8, "UINT8", np.array([[255], [0]], dtype=np.uint8)),
        (TensorProto.UINT16, "UINT16", np.array([[65535], [0]], dtype=np.uint16)),
        (TensorProto.UINT32, "UINT32", np.array([[2**32 - 1], [0]], dtype=np.uint32)),
        (TensorProto.UINT64, "UINT64", np.array([[2**64 - 1], [0]], dtype=np.uint64)),
        (TensorProto.INT8, "INT8", np.array([[-128], [127]], dtype=np.int8)),
        (TensorProto.INT16, "INT16", np.array([[-(2**15)], [1]], dtype=np.int16)),
        (TensorProto.INT32, "INT32", np.array([[-(2**31)], [1]], dtype=np.int32)),
        (TensorProto.INT64, "INT64", np.array([[-(2**63)], [1]], dtype=np.int64)),
        (TensorProto.FLOAT16, "FP16", np.array([[65504], [-1]], dtype=np.float16)),
        (TensorProto.BFLOAT16, "BF16", np.array([[1.5], [-3.0e38]], dtype=np.float32).view(np.uint32)),
        (TensorProto.FLOAT, "FP32", np.array([[1.1], [np.nan]], dtype=np.float32)),
        (TensorProto.DOUBLE, "FP64", np.array([[1.1], [np.inf]], dtype=np.float64)),
        (TensorProto.STRING, "BYTES", np.array([["grün".encode()], [b""]], dtype=object)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_datatype_goes_in_and_comes_out_unchanged(
    tmp_path: Path, element: int, datatype: str, values: np.ndarray
) -> None:
    if datatype == "BF16":  # as the wire gives it: float32 with the lower half of its bits zero
        values = (values & np.uint32(0xFFFF0000)).view(np.float32)
    model = load_model(spec_of("onnx", write_identity(tmp_path / "m.onnx", element, ["n", 1])))
    assert model.signature.inputs == (TensorSpec("x", datatype, (-1, 1)),)
    assert model.signature.batched
    answer = model.predict({"x": values}, ("y",))["y"]
    assert answer.dtype == values.dtype
    np.testing.assert_array_equal(answer, values)


def test_an_empty_bf16_batch_stays_empty(tmp_path: Path) -> None:
    model = load_model(spec_of("onnx", write_identity(tmp_path / "m.onnx", TensorProto.BFLOAT16, ["n", 2])))
    assert model.predict({"x": np.empty((0, 2), np.float32)}, ())["y"].shape == (0, 2)


def test_text_that_is_not_utf8_is_the_inputs_fault_by_name(tmp_path: Path) -> None:
    model = load_model(spec_of("onnx", write_identity(tmp_path / "m.onnx", TensorProto.STRING, ["n"])))
    with pytest.raises(ValueError, match='input "x": expected UTF-8'):
        model.predict({"x": np.array([b"\xff"], dtype=object)}, ())


@pytest.mark.parametrize(
    ("first", "second", "batched"),
    [(["n", 2], ["n", 3], True), (["a", 2], ["b", 3], False), ([1, 2], [1, 3], False), ([None, 2], [None, 3], True)],
)
def test_rows_may_be_merged_only_where_all_first_axes_are_free_and_the_same(
    tmp_path: Path, first: list[Any], second: list[Any], batched: bool
) -> None:
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ("p", "q")]
    inputs = [info("p", TensorProto.FLOAT, first), info("q", TensorProto.FLOAT, second)]
    outputs = [info("p_out", TensorProto.FLOAT, first), info("q_out", TensorProto.FLOAT, second)]
    model = load_model(spec_of("onnx", write_graph(tmp_path / "m.onnx", nodes, inputs, outputs)))
    assert model.signature.batched is batched


def test_a_scalar_output_forbids_merging_rows(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], keepdims=0)]
    inputs, outputs = [info("x", TensorProto.FLOAT, ["n", 2])], [info("y", TensorProto.FLOAT, [])]
    model = load_model(spec_of("onnx", write_graph(tmp_path / "m.onnx", nodes, inputs, outputs)))
    assert model.signature.outputs == (TensorSpec("y", "FP32", ()),)
    assert not model.signature.batched


def test_a_declared_signature_that_fits_is_served_as_declared(tmp_path: Path) -> None:
    path = write_identity(tmp_path / "m.onnx", TensorProto.FLOAT, ["n", "m"])
    declared = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, -1)),))
    assert load_model(spec_of("onnx", path, signature=declared)).signature == declared


@pytest.mark.parametrize(
    ("name", "datatype", "shape", "message"),
    [
        ("z", "FP32", (-1, 3), 'input "z" is declared, but the model has only: x'),
        ("x", "FP64", (-1, 3), 'input "x": declared FP64 [-1, 3], the model has FP32 [-1, 3]'),
        ("x", "FP32", (-1, 4), 'input "x": declared FP32 [-1, 4], the model has FP32 [-1, 3]'),
        ("x", "FP32", (-1, -1), 'input "x": declared FP32 [-1, -1], the model has FP32 [-1, 3]'),
        ("x", "FP32", (-1, 3, 1), 'input "x": declared FP32 [-1, 3, 1], the model has FP32 [-1, 3]'),
    ],
)
def test_a_declared_input_that_differs_is_refused_by_name(
    tmp_path: Path, name: str, datatype: str, shape: tuple[int, ...], message: str
) -> None:
    path = write_identity(tmp_path / "m.onnx", TensorProto.FLOAT, ["n", 3])
    declared = Signature((TensorSpec(name, datatype, shape),), (TensorSpec("y", "FP32", (-1, 3)),))
    assert message in refuse(path, signature=declared)


def test_a_forgotten_input_and_a_fixed_batch_are_refused(tmp_path: Path) -> None:
    output = (TensorSpec("y", "FP32", (1, 3)),)
    path = write_identity(tmp_path / "m.onnx", TensorProto.FLOAT, [1, 3])
    assert 'input "x" (FP32 [1, 3]) is not declared' in refuse(path, signature=Signature((), output))
    declared = Signature((TensorSpec("x", "FP32", (1, 3)),), output, batched=True)
    assert "declared as batched" in refuse(path, signature=declared)


def test_outputs_that_are_no_tensors_are_refused_with_advice(tmp_path: Path) -> None:
    info, sequence = helper.make_tensor_value_info, helper.make_tensor_sequence_value_info
    nodes = [helper.make_node("SequenceConstruct", ["x"], ["y"])]
    inputs, outputs = [info("x", TensorProto.FLOAT, ["n"])], [sequence("y", TensorProto.FLOAT, None)]
    message = refuse(write_graph(tmp_path / "m.onnx", nodes, inputs, outputs))
    assert 'output "y" has type seq(tensor(float))' in message
    assert "plain tensors" in message


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x08\x08\x3a\xff\xff\xff\xff\x0flocation"])
def test_a_broken_file_is_refused_without_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    assert "broken.onnx" in refuse(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "cannot read none.onnx" in refuse(tmp_path / "none.onnx")


def test_an_operator_that_does_not_exist_is_named(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    tensors = [info("x", TensorProto.FLOAT, ["n"])], [info("y", TensorProto.FLOAT, ["n"])]
    path = write_graph(tmp_path / "m.onnx", [helper.make_node("Frobnicate", ["x"], ["y"])], *tensors)
    assert "Frobnicate" in refuse(path)


def write_external(path: Path, location: str) -> Path:
    """A model x + w whose w = [1, 2] lies in the external file `location`."""
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        weights.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
    info = helper.make_tensor_value_info
    tensors = [info("x", TensorProto.FLOAT, ["n", 2])], [info("y", TensorProto.FLOAT, ["n", 2])]
    return write_graph(path, [helper.make_node("Add", ["x", "w"], ["y"])], *tensors, [weights])


WEIGHTS = np.array([1, 2], dtype=np.float32).tobytes()


def test_external_data_beside_the_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.bin").write_bytes(WEIGHTS)
    model = load_model(spec_of("onnx", write_external(tmp_path / "m.onnx", "weights/w.bin")))
    assert model.predict({"x": np.zeros((1, 2), np.float32)}, ())["y"].tolist() == [[1, 2]]


@pytest.mark.parametrize("location", ["../w.bin", "inside/../../w.bin", "/etc/hostname", "..\\w.bin", "", "."])
def test_external_data_that_leaves_the_directory_is_refused(tmp_path: Path, location: str) -> None:
    home = tmp_path / "home"
    (home / "inside").mkdir(parents=True)
    (tmp_path / "w.bin").write_bytes(WEIGHTS)
    assert "leaves the model's directory" in refuse(write_external(home / "m.onnx", location))


@pytest.mark.parametrize("location", ["w.bin", "folder/w.bin"])
def test_external_data_behind_a_symbolic_link_is_refused(tmp_path: Path, location: str) -> None:
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    away.mkdir()
    (away / "w.bin").write_bytes(WEIGHTS)
    (home / "w.bin").symlink_to(away / "w.bin")
    (home / "folder").symlink_to(away)
    assert "symbolic link" in refuse(write_external(home / "m.onnx", location))


def test_external_data_that_is_missing_or_a_pipe_is_refused(tmp_path: Path) -> None:
    assert "is not there" in refuse(write_external(tmp_path / "m.onnx", "w.bin"))
    os.mkfifo(tmp_path / "w.bin")
    assert "not a regular file" in refuse(tmp_path / "m.onnx")


def test_external_data_is_found_in_subgraphs_attributes_functions_and_sparse_tensors(tmp_path: Path) -> None:
    def tensor(location: str) -> TensorProto:
        made = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        made.external_data.append(onnx.StringStringEntryProto(key="location", value=location))
        return made

    inner = helper.make_graph([], "inner", [], [], [tensor("subgraph")])
    function = onnx.FunctionProto(name="f", node=[helper.make_node("Constant", [], ["c"], value=tensor("function"))])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner)
    graph = helper.make_graph([node, helper.make_node("Constant", [], ["c"], value=tensor("attribute"))], "g", [], [])
    graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor("values"), indices=tensor("indices")))
    model = onnx.ModelProto(graph=graph, functions=[function])
    model.training_info.append(
        onnx.TrainingInfoProto(algorithm=helper.make_graph([], "t", [], [], [tensor("training")]))
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    found = read_references(path).external
    assert found == {"subgraph", "function", "attribute", "values", "indices", "training"}


def test_the_classes_of_a_zipmap_are_read_in_the_models_own_order(tmp_path: Path) -> None:
    path = Path(onnx_zipmap(tmp_path).spec.path)
    assert read_references(path).classes == {"output_probability": ("setosa", "versicolor", "virginica")}


def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    path = Path(onnx_zipmap(tmp_path).spec.path)
    whole, chance, refused = path.read_bytes() + b"location", random.Random(7), 0
    for _ in range(300):
        damaged = bytearray(whole[: chance.randrange(64, len(whole))] + b"location")
        for _ in range(chance.randrange(8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read_references(path)
        except ModelRefused:
            refused += 1
    assert refused > 100


def test_a_file_that_only_mentions_the_word_is_read_to_its_end(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    tensors = [info("location", TensorProto.FLOAT, ["n"])], [info("y", TensorProto.FLOAT, ["n"])]
    path = write_graph(tmp_path / "m.onnx", [helper.make_node("Identity", ["location"], ["y"])], *tensors)
    assert read_references(path).external == frozenset()
    assert load_model(spec_of("onnx", path)).signature.inputs[0].name == "location"


def test_providers_follow_the_device() -> None:
    both = ["TensorrtExecutionProvider", "CUDAExecutionProvider", CPU]
    assert choose_providers(ModelOptions(), both) == ["CUDAExecutionProvider", CPU]
    assert choose_providers(ModelOptions(), [CPU]) == [CPU]
    assert choose_providers(ModelOptions(device="cpu"), both) == [CPU]
    assert choose_providers(ModelOptions(device="cuda:1"), both) == [("CUDAExecutionProvider", {"device_id": 1}), CPU]
    with pytest.raises(ModelRefused, match="device cuda: this ONNX Runtime has only CPUExecutionProvider"):
        choose_providers(ModelOptions(device="cuda"), [CPU])


def test_the_session_takes_the_threads_of_the_options(tmp_path: Path) -> None:
    path = write_identity(tmp_path / "m.onnx", TensorProto.FLOAT, ["n"])
    model: Any = load_model(spec_of("onnx", path, ModelOptions(threads=2)))
    options = model.session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
