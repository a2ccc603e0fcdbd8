"""Find the files that an ONNX model keeps its weights in, without ONNX and without reading the graph.

Called when a single `.onnx` file is digested: weights that lie beside it are part of the model.
"""

import mmap
from pathlib import Path

from hyperion.schema.errors import ModelRefused
from hyperion.store.reading import open_regular, resolve_inside

# A StringStringEntryProto {key: "location", value: ...} as it is serialised, up to the length of the value.
_MARK = b"\x0a\x08location\x12"
_LONGEST_NAME = 4096


def find_external_files(path: Path) -> tuple[str, ...]:
    """Names, relative to the model's directory, of its external data files; () for the usual self-contained model.

    ModelRefused when one lies outside of the directory or is missing: reading it would read somebody else's file.
    """
    names: set[str] = set()
    with open(open_regular(path), "rb") as file:
        if file.seek(0, 2) == 0:
            return ()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = data.find(_MARK)
            while at >= 0:
                name = _read_name(data, at + len(_MARK))
                if name:
                    names.add(name)
                at = data.find(_MARK, at + 1)
    for name in names:
        if Path(name).is_absolute():
            raise ModelRefused(f"{path.name}: external data {name!r}: expected a path relative to the model")
        resolve_inside(path.parent, name, f"{path.name}: external data")
    return tuple(sorted(names))


def _read_name(data: mmap.mmap, at: int) -> str:
    """The text whose one or two byte length is at `at`; "" when that is no text, so that weights which happen to hold
    the mark's bytes do no harm."""
    size, at = data[at] if at < len(data) else 0, at + 1
    if size & 0x80:
        size, at = (size & 0x7F) | (data[at] << 7 if at < len(data) else 0), at + 1
    if not 0 < size <= min(_LONGEST_NAME, len(data) - at):
        return ""
    try:
        name = data[at : at + size].decode()
    except UnicodeDecodeError:
        return ""
    return name if name.isprintable() else ""
