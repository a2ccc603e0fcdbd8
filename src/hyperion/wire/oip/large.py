"""Large V2 requests: the data of each input is cut out of the body, so that the decoder of the rest need not read it.

Reading all the text of large tensors only to skip it costs as much as parsing it. The cut is a guess by brackets, made
safe by what `json` does with it: it takes the result only if the rest, with a placeholder for each cut, is a right
request whose inputs' data are those placeholders, and each cut is the right data of its input. Otherwise it decodes the
body again, exactly.
"""

from hyperion.schema.call import Buffer

LARGE_BODY_BYTES = 6144  # about 300 numbers; below, cutting costs more than it saves (bench/micro_wire.py)
PLACEHOLDER = b"-0.0e-0"

_DEEPEST = 16
_KEY = b'"data"'


def cut_data(body: Buffer, max_arrays: int) -> tuple[bytes, list[bytes]] | None:
    """The body with PLACEHOLDER for each array that follows the text `"data"`, and those arrays; None without any.

    >>> cut_data(b'{"inputs":[{"data":[[1,2],[3,4]],"shape":[2,2]}]}', 64)
    (b'{"inputs":[{"data":-0.0e-0,"shape":[2,2]}]}', [b'[[1,2],[3,4]]'])
    """
    body = bytes(body)
    pieces: list[bytes] = []
    arrays: list[bytes] = []
    end = 0
    while (key := body.find(_KEY, end)) >= 0:
        start = body.find(b"[", key)
        stop = _end_of_array(body, start) if start >= 0 else -1
        if stop < 0 or len(arrays) == max_arrays:
            return None
        pieces.append(body[end:start])
        arrays.append(body[start:stop])
        end = stop
    pieces.append(body[end:])
    if not arrays or any(PLACEHOLDER in piece for piece in pieces):
        return None
    return PLACEHOLDER.join(pieces), arrays


def _end_of_array(body: bytes, start: int) -> int:
    """Where the array ends that begins at `start`, by its first run of as many closing brackets as open; or -1."""
    inner = start + 1
    while body.startswith(b"[", inner):
        inner += 1
        if inner - start > _DEEPEST:
            return -1
    closing = b"]" * (inner - start)
    stop = body.find(b"]", inner)  # rows are often few and long: this search is ten times as quick as the next
    if not body.startswith(closing, stop):
        stop = body.find(closing, stop)
    return stop + len(closing) if stop >= 0 else -1
