"""The runner's loop by itself; with gateways and real models it is tested in `tests/gateway` and `tests/e2e`."""

import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hyperion.runner.loop import EXIT_MEMORY, RunnerLoop
from hyperion.runner.model import Arrays, LoadedModel, Unary
from hyperion.schema.call import Tensor
from hyperion.schema.model import Signature, TensorSpec
from hyperion.wire.frame import GREETING, PREDICT, RESULT, Frame, FrameReader, encode_frame, read_tensors
from hyperion.wire.frame_headers import Hello, Predict, Result, TensorHead
from hyperion.wire.tensor import from_numpy, to_numpy

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("x", "FP32", (-1, 1)),))


class Echo(Unary):
    """Gives back what it gets."""

    platform = "python"
    signature = SIGNATURE

    def predict(self, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        return inputs


class Padded(Unary):
    """As wide as the longest text of its batch; raises for a `bad` one, and for as many of them as it is told."""

    platform = "python"
    signature = Signature((TensorSpec("text", "BYTES", (-1, 1)),), (TensorSpec("codes", "INT64", (-1, -1)),))

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.whole = True

    def predict(self, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        texts = [row[0] for row in inputs["text"]]
        self.batches.append(texts)
        if b"bad" in texts or (not self.whole and len(texts) > 2):
            raise ValueError("a bad text")
        if b"huge" in texts:
            raise MemoryError("no more")
        codes = np.zeros((len(texts), max(map(len, texts))), np.int64)
        for row, text in zip(codes, texts, strict=True):
            row[: len(text)] = list(text)
        return {"codes": codes}


class Careless(Unary):
    """Gives numbers where it has promised texts."""

    platform = "python"
    signature = Signature((TensorSpec("text", "BYTES", (-1, 1)),), (TensorSpec("text", "BYTES", (-1, 1)),), True, True)

    def predict(self, inputs: Arrays, outputs: tuple[str, ...]) -> Arrays:
        return {"text": np.array([[len(row[0]) if row[0] == b"bad" else row[0]] for row in inputs["text"]], object)}

    def stream(self, inputs: Arrays) -> Iterator[Arrays]:
        yield {"text": np.array([[3]], object)}


def make_loop(tmp_path: Path, model: LoadedModel) -> tuple[RunnerLoop, socket.socket]:
    hello = Hello(1, "r", "m", "1", "", "python", model.signature, 1, {}, 1, 1)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    return RunnerLoop(model, listener, hello, 30.0, 0, print), listener


def compute(tmp_path: Path, model: LoadedModel, texts: list[bytes], stream: bool = False) -> tuple[Frame, int]:
    """What a loop answers to one batch, a request a text, and how it ends when its gateway leaves."""
    loop, listener = make_loop(tmp_path, model)
    wakeup, writer = socket.socketpair()
    answers: list[Frame] = []

    def ask() -> None:
        tensor = from_numpy("text", np.array([[text] for text in texts], object), "BYTES")
        head = TensorHead("text", "BYTES", tensor.shape, len(tensor.data))
        predict = Predict((1,) * len(texts), (head,), stream=stream)
        with socket.socket(socket.AF_UNIX) as gateway:
            gateway.connect(str(tmp_path / "s"))
            with open(tmp_path / "ring", "wb+") as ring:
                ring.truncate(4096)
                socket.send_fds(gateway, [GREETING], [ring.fileno()])
            gateway.sendall(encode_frame(PREDICT, 7, predict, [tensor.data]))
            reader = FrameReader()
            while not answers and (data := gateway.recv(1 << 16)):
                answers.extend([frame for frame in reader.feed(data) if frame.kind == RESULT])
            writer.send(bytes((signal.SIGTERM,)))

    with listener, wakeup, writer:
        asking = threading.Thread(target=ask)
        asking.start()
        code = loop.run(wakeup.fileno(), lambda: None)
        asking.join()
    (answer,) = answers
    return answer, code


def rows_of(answer: Frame) -> list[list[int]]:
    tensors: tuple[Tensor, ...] = read_tensors(answer.header.tensors, answer.data, None)
    return [row for tensor in tensors for row in to_numpy(tensor).tolist()]


def failures_of(answer: Frame) -> list[tuple[int, str]]:
    result: Result = answer.header
    return sorted((failure.index, failure.kind) for failure in result.failures)


def test_a_signal_on_the_wakeup_descriptor_drains_an_idle_runner_without_its_handler(tmp_path: Path) -> None:
    loop, listener = make_loop(tmp_path, Echo())
    wakeup, writer = socket.socketpair()
    with listener, wakeup, writer:
        writer.send(bytes((signal.SIGCHLD, signal.SIGTERM)))
        assert loop.run(wakeup.fileno(), lambda: None) == 0


def test_a_loop_that_goes_round_says_so(tmp_path: Path) -> None:
    loop, listener = make_loop(tmp_path, Echo())
    wakeup, writer = socket.socketpair()
    told: list[str] = []

    def tell() -> None:
        told.append("alive")
        if len(told) == 2:
            writer.send(bytes((signal.SIGTERM,)))

    with listener, wakeup, writer:
        assert loop.run(wakeup.fileno(), tell) == 0
    assert len(told) == 2


def test_a_bad_request_fails_alone_in_a_batch_that_is_as_wide_as_its_longest_text(tmp_path: Path) -> None:
    model = Padded()
    answer, code = compute(tmp_path, model, [b"a", b"bb", b"bad", b"dddd"])
    assert (failures_of(answer), code) == ([(2, "ValueError")], 0)
    assert rows_of(answer) == [[97, 0, 0, 0], [98, 98, 0, 0], [100] * 4]
    assert model.batches[-1] == [b"a", b"bb", b"dddd"]


def test_halves_of_one_width_are_not_computed_again(tmp_path: Path) -> None:
    model = Padded()
    answer, _code = compute(tmp_path, model, [b"aa", b"bb", b"bad", b"dd"])
    assert rows_of(answer) == [[97, 97], [98, 98], [100, 100]]
    assert model.batches[-1] == [b"dd"]


def test_what_cannot_be_computed_as_one_batch_fails_and_its_runner_goes_on(tmp_path: Path) -> None:
    model = Padded()
    model.whole = False
    answer, code = compute(tmp_path, model, [b"a", b"bb", b"bad", b"dddd"])
    assert failures_of(answer) == [(index, "ValueError") for index in range(4)]
    assert (rows_of(answer), code) == ([], 0)


def test_an_output_that_is_not_what_was_declared_fails_its_request_and_not_the_runner(tmp_path: Path) -> None:
    answer, code = compute(tmp_path, Careless(), [b"one", b"bad", b"two"])
    assert (failures_of(answer), code) == ([(1, "SchemaMismatch")], 0)
    assert rows_of(answer) == [[b"one"], [b"two"]]


def test_a_part_of_a_stream_that_is_not_what_was_declared_ends_the_stream_and_not_the_runner(tmp_path: Path) -> None:
    answer, code = compute(tmp_path, Careless(), [b"one"], stream=True)
    assert (failures_of(answer), code) == ([(0, "SchemaMismatch")], 0)


def test_a_runner_without_memory_answers_its_batch_and_leaves(tmp_path: Path) -> None:
    answer, code = compute(tmp_path, Padded(), [b"a", b"huge"])
    assert failures_of(answer) == [(0, "MemoryError"), (1, "MemoryError")]
    assert code == EXIT_MEMORY
