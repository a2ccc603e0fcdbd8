"""The members of an Open Inference Protocol request as JSON, which `json` decodes and checks. In a file of its own
for the reason given in `frame_headers`.
"""

from msgspec import Raw, Struct

from hyperion.wire.parameters import Parameters


class RequestInput(Struct, gc=False):
    """One input tensor; its data stays text."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Raw = Raw()
    parameters: Parameters | None = None


class RequestOutput(Struct, gc=False):
    """One output that is asked for."""

    name: str
    parameters: Parameters | None = None


class Request(Struct, gc=False):
    """The whole request; members that the protocol does not know are passed over."""

    inputs: tuple[RequestInput, ...]
    id: str = ""
    outputs: tuple[RequestOutput, ...] | None = None
    parameters: Parameters | None = None
    model_name: Raw = Raw()  # the path says which model; clients repeat it here
    model_version: Raw = Raw()


class StrictRequest(Request, gc=False, forbid_unknown_fields=True):
    """A request with members that the protocol knows."""
