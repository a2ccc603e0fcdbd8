"""Inference messages that were decoded or written before, to tell the next one by. Owned by the gateway's gRPC edge.

A client that asks one model again and again sends the same bytes each time, but for the raw contents of its tensor at
the end; and it gets the same bytes, but for those of the answer. What protobuf made of the others once holds as long as
they are the same.
"""

from typing import Final

from msgspec import Struct

from hyperion.schema.call import BatchAnswer, Buffer, InferenceAnswer, InferenceCall, Tensor
from hyperion.wire.grpc.contents import varint
from hyperion.wire.grpc.framing import frame_message
from hyperion.wire.limits import WireLimits
from hyperion.wire.oip.grpc import (
    RAW_OUTPUT_TAG,
    AnswerFormat,
    decode_infer,
    encode_head,
    encode_infer,
    encode_raw,
    is_raw_answer,
    split_raw,
)
from hyperion.wire.tensor import DATATYPES

__all__ = ["InferCodec"]

MAX_KNOWN: Final = 256
MAX_KNOWN_BYTES: Final = 1024  # of a message, but for its raw contents

_Shapes = tuple[tuple[str, str, tuple[int, ...]], ...]


class _Known(Struct, frozen=True, gc=False):
    """A message with one raw tensor of a fixed size: what comes before its bytes, and what that means."""

    before: bytes
    call: InferenceCall
    form: AnswerFormat


class InferCodec:
    """`decode` and `encode` are those of `grpc`, with a memory."""

    def __init__(self, limits: WireLimits) -> None:
        self._limits = limits
        self._calls: dict[int, _Known] = {}  # by the length of the message
        self._heads: dict[tuple[str, str, _Shapes], bytes] = {}

    def decode(self, request: Buffer) -> tuple[InferenceCall, AnswerFormat]:
        """As `decode_infer`, which also says what it raises."""
        known = self._calls.get(len(request))
        if known is not None:
            size = len(known.before)
            if request[:size] == known.before:
                call = known.call
                (old,) = call.inputs
                tensor = Tensor(old.name, old.datatype, old.shape, request[size:])
                return InferenceCall(
                    call.model,
                    call.version,
                    call.id,
                    (tensor,),
                    call.outputs,
                    call.parameters,
                    call.priority,
                    call.timeout_ns,
                ), known.form
        call, form = decode_infer(request, self._limits)
        self._learn(request, call, form)
        return call, form

    def _learn(self, request: Buffer, call: InferenceCall, form: AnswerFormat) -> None:
        """Remembers a message whose last bytes are its only tensor, raw and with a size that its shape fixes."""
        if len(call.inputs) != 1 or not form.raw or form.id:
            return
        (tensor,) = call.inputs
        size = len(request) - len(tensor.data)
        if not DATATYPES[tensor.datatype].size or not len(tensor.data) or size > MAX_KNOWN_BYTES:
            return
        _head, raw = split_raw(request)  # its field must be the last one, and the only one of its kind
        if raw is None or len(raw) != 1 or len(raw[0]) != len(tensor.data):
            return
        if len(self._calls) >= MAX_KNOWN:
            self._calls.clear()
        empty = Tensor(tensor.name, tensor.datatype, tensor.shape, b"")
        kept = InferenceCall(
            call.model, call.version, call.id, (empty,), call.outputs, call.parameters, call.priority, call.timeout_ns
        )
        self._calls[len(request)] = _Known(bytes(request[:size]), kept, form)

    def encode(self, answer: InferenceAnswer, form: AnswerFormat) -> bytes:
        """As `encode_infer`."""
        outputs = answer.outputs
        if form.id or not is_raw_answer(answer, form):
            return encode_infer(answer, form)
        shapes = tuple([(tensor.name, tensor.datatype, tensor.shape) for tensor in outputs])
        return frame_message(self._head(answer.model, answer.version, shapes), *encode_raw(outputs))

    def encode_together(self, answer: BatchAnswer) -> list[bytes]:
        """The messages for all calls of a batch that want raw contents and gave no id, as `encode` writes each."""
        count = len(answer.queue_ns)
        shapes = tuple(
            [
                (one.name, one.datatype, one.shape if count == 1 else (answer.rows, *one.shape[1:]))
                for one in answer.outputs
            ]
        )
        before = [self._head(answer.model, answer.version, shapes)]
        columns: list[list[bytes]] = []
        for output in answer.outputs:
            data = bytes(output.data)
            size = len(data) // count
            columns.append([data[at * size : at * size + size] for at in range(count)])
            before[-1] += RAW_OUTPUT_TAG + varint(size)
            before.append(b"")
        size = sum([len(part) for part in before]) + sum([len(column[0]) for column in columns])
        start = before[0] = b"\0" + size.to_bytes(4) + before[0]
        if len(columns) == 1:
            return [start + piece for piece in columns[0]]
        if not columns:
            return [start] * count
        return [
            b"".join([part for pair in zip(before, row, strict=False) for part in pair])
            for row in zip(*columns, strict=True)
        ]

    def _head(self, model: str, version: str, shapes: _Shapes) -> bytes:
        """A ModelInferResponse without its raw contents."""
        key = (model, version, shapes)
        head = self._heads.get(key)
        if head is None:
            empty = [Tensor(name, datatype, shape, b"") for name, datatype, shape in shapes]
            head = encode_head(InferenceAnswer(model, version, "", tuple(empty)), "", True, None)
            if len(self._heads) >= MAX_KNOWN:
                self._heads.clear()
            self._heads[key] = head
        return head
