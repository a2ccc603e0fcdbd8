"""The members of Open Inference Protocol answers and metadata that `upstream` reads. In a file of their own for the
reason given in `frame_headers`.
"""

from msgspec import Raw, Struct

from hyperion.wire.parameters import Parameters


class AnswerOutput(Struct, gc=False):
    """One output tensor; its data stays text."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Raw = Raw()
    parameters: Parameters | None = None


class Answer(Struct, gc=False):
    """A whole answer; what else there is in it is passed over."""

    outputs: tuple[AnswerOutput, ...]


class ServerMetadata(Struct, gc=False):
    """What a server says that it can do."""

    extensions: tuple[str, ...] = ()


class Readiness(Struct, gc=False):
    """What some servers say of a model in the body, whatever the status is."""

    ready: bool = True
