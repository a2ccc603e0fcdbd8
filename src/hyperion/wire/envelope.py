"""Bodies of JSON to records, within the limits. Used by every JSON protocol of this room; tensors' data stays text."""

from typing import Any

import msgspec

from hyperion.schema.call import Buffer
from hyperion.schema.errors import MalformedRequest, TooLarge
from hyperion.wire.json.depth import check_depth
from hyperion.wire.limits import WireLimits


def decode_envelope(decode: Any, body: Buffer, limits: WireLimits, what: str) -> Any:
    """`decode(body)` after the size and depth of the body were checked; its errors as MalformedRequest, TooLarge."""
    if len(body) > limits.max_body_bytes:
        raise TooLarge(f"the body has {len(body)} bytes, at most {limits.max_body_bytes} are allowed")
    check_depth(body, limits.max_json_depth)
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise MalformedRequest(f"not {what}: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRequest(f"the body is not JSON: {error}") from None
