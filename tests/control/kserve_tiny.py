"""KServe's own server with one model, for the tests of upstreams: `python kserve_tiny.py HTTP_PORT GRPC_PORT`."""

import sys
from typing import Any

from kserve import Model, ModelServer


class Tiny(Model):  # type: ignore[misc]
    """Says what it takes and gives; nobody asks it for a prediction here."""

    async def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]

    async def get_output_types(self) -> list[dict[str, Any]]:
        return [{"name": "y", "datatype": "FP32", "shape": [-1]}]


if __name__ == "__main__":
    tiny = Tiny("tiny")
    tiny.ready = True
    ModelServer(http_port=int(sys.argv[1]), grpc_port=int(sys.argv[2]), workers=1).start([tiny])
