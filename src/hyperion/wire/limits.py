"""What a request may ask for before anything is allocated for it. Read by every decoder of this room."""

from msgspec import Struct


class WireLimits(Struct, frozen=True):
    """Bounds of one request. A decoder checks each of them before it allocates what it bounds.

    `max_body_bytes` is for the whole body after decompression, `max_text_bytes` for what of it is JSON or CSV: parsing
    that holds up everybody else (the gateway checks it, ADR 0009). `max_tensors` bounds inputs and requested outputs
    each.
    `max_elements` bounds one tensor whatever its encoding; `max_json_elements` bounds a tensor that comes as JSON text,
    which costs up to 40 bytes of memory per element while it is parsed (binary tensors cost none).
    `max_json_rows` bounds what becomes a Python object each, at some microseconds: BYTES elements, rows, CSV lines;
    `max_bytes_elements` bounds the BYTES elements of all binary tensors of a request, each of whose lengths is read;
    `max_typed_elements` the integers of a gRPC tensor in typed contents, which are converted one by one.
    `max_json_depth` bounds nested arrays and objects. `max_name_bytes` is for names and ids, as UTF-8.
    """

    max_body_bytes: int = 64 * 1024 * 1024
    max_text_bytes: int = 16 * 1024 * 1024
    max_tensors: int = 64
    max_rank: int = 8
    max_elements: int = 2**31
    max_json_elements: int = 2**23
    max_json_rows: int = 2**19
    max_bytes_elements: int = 2**20
    max_typed_elements: int = 2**22
    max_json_depth: int = 32
    max_name_bytes: int = 1024
    max_parameters: int = 64


DEFAULT_LIMITS = WireLimits()
