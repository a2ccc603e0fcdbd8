"""Open Inference Protocol V2 over HTTP, answers: an InferenceAnswer to JSON, or to JSON and binary tensors.

Called by the gateway with the AnswerFormat that `json.decode_infer` gave for the request. The JSON around the data
depends on names, datatypes and shapes alone, so it is kept as a template for each combination met lately.
"""

from collections.abc import Mapping

import orjson
from msgspec import Struct

from hyperion.schema.call import BatchAnswer, Buffer, InferenceAnswer, Tensor
from hyperion.wire.json.text import encode_flat, encode_split

_TEMPLATES_KEPT = 1024

_TemplateKey = tuple[str, str, tuple[tuple[str, str, tuple[int, ...]], ...]]


class AnswerFormat(Struct, frozen=True, gc=False):
    """How one caller wants the answer: the id to repeat ("" for none), if outputs are binary unless said otherwise, and
    the outputs for which it was said."""

    id: str = ""
    binary: bool = False
    overrides: Mapping[str, bool] = {}

    def is_binary(self, output: str) -> bool:
        """If the output of that name goes as binary data."""
        return self.overrides.get(output, self.binary)


ALL_JSON = AnswerFormat()


def encode_answer(answer: InferenceAnswer, format: AnswerFormat) -> tuple[list[Buffer], int | None]:
    """The body as a list of buffers and, when some of it is binary, the length of the JSON at its start.

    That length goes into the header Inference-Header-Content-Length, and the content type is application/octet-stream;
    with None the body is application/json. Raises Unsupported for outputs that JSON cannot carry.
    """
    if format is ALL_JSON:
        return [_encode_json(answer)], None
    if not format.binary and not any(format.overrides.values()):
        return [_with_id(_encode_json(answer), format.id)], None
    return _encode_binary(answer, format)


def encode_together(answer: BatchAnswer) -> list[bytes] | None:
    """The bodies for all calls of a batch, as `encode_answer` writes each with `ALL_JSON`, in one pass over the
    outputs. None where they have to be written one by one."""
    pieces = len(answer.queue_ns)
    columns = []
    for output in answer.outputs:
        texts = encode_split(output, pieces)
        if texts is None:
            return None
        columns.append(texts)
    rows = answer.rows
    shapes = [(one.name, one.datatype, (rows, *one.shape[1:])) for one in answer.outputs]
    key = (answer.model, answer.version, tuple(shapes))
    around = _around.get(key)
    if around is None:
        around = _describe_around(answer, shapes)
        if len(_around) >= _TEMPLATES_KEPT:
            _around.clear()
        _around[key] = around
    start, *middles, end = around
    if not middles:
        return [b"".join((start, text, end)) for text in columns[0]]
    bodies = []
    behinds = [*middles, end]
    for row in zip(*columns, strict=True):
        parts = [start]
        for text, behind in zip(row, behinds, strict=True):
            parts.append(text)
            parts.append(behind)
        bodies.append(b"".join(parts))
    return bodies


_around: dict[_TemplateKey, list[bytes]] = {}


def _describe_around(answer: BatchAnswer, shapes: list[tuple[str, str, tuple[int, ...]]]) -> list[bytes]:
    """The JSON of such an answer, cut where the elements of each output belong."""
    empty = [Tensor(name, datatype, shape, b"") for name, datatype, shape in shapes]
    parts = [_head(answer.model, answer.version)]
    for index, one in enumerate(empty):
        parts[-1] += (b"," if index else b"") + _describe(one)[:-1] + b',"data":['
        parts.append(b"]}")
    parts[-1] += b"]}"
    return parts


def encode_error(message: str) -> bytes:
    """The protocol's error object."""
    return orjson.dumps({"error": message.encode("utf-8", "replace").decode()})


def _encode_json(answer: InferenceAnswer) -> bytes:
    outputs = answer.outputs
    if len(outputs) == 1:  # spelled out because it is the hot path
        one = outputs[0]
        template = _templates.get((answer.model, answer.version, one.name, one.datatype, one.shape))
        if template is not None:
            return template % encode_flat(one)
    key = (answer.model, answer.version, *[part for one in outputs for part in (one.name, one.datatype, one.shape)])
    template = _templates.get(key)
    if template is None:
        template = _make_template(answer)
        if len(_templates) >= _TEMPLATES_KEPT:  # shapes that keep changing: start over, rather than track their ages
            _templates.clear()
        _templates[key] = template
    return template % tuple([encode_flat(one) for one in outputs])


_templates: dict[tuple[object, ...], bytes] = {}


def _make_template(answer: InferenceAnswer) -> bytes:
    """The JSON of such an answer with %b in place of each output's data."""
    outputs = b",".join([_escape(_describe(one)[:-1]) + b',"data":%b}' for one in answer.outputs])
    return _escape(_head(answer.model, answer.version)) + outputs + b"]}"


def _escape(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")


def _head(model: str, version: str) -> bytes:
    return b'{"model_name":%b,"model_version":%b,"outputs":[' % (orjson.dumps(model), orjson.dumps(version))


def _describe(output: Tensor) -> bytes:
    return orjson.dumps({"name": output.name, "datatype": output.datatype, "shape": output.shape})


def _with_id(text: bytes, request_id: str) -> bytes:
    """The JSON object with an id in front."""
    return b'{"id":%b,%b' % (orjson.dumps(request_id), text[1:]) if request_id else text


def _encode_binary(answer: InferenceAnswer, format: AnswerFormat) -> tuple[list[Buffer], int | None]:
    parts: list[bytes] = []
    buffers: list[Buffer] = [b""]
    for output in answer.outputs:
        start = _describe(output)[:-1]
        if format.is_binary(output.name):
            parts.append(b'%b,"parameters":{"binary_data_size":%d}}' % (start, len(output.data)))
            buffers.append(output.data)
        else:
            parts.append(b'%b,"data":%b}' % (start, encode_flat(output)))
    text = _with_id(_head(answer.model, answer.version) + b",".join(parts) + b"]}", format.id)
    buffers[0] = text
    return buffers, len(text) if len(buffers) > 1 else None
