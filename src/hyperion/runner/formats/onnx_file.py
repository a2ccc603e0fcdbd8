"""What an ONNX file refers to, read without running any of it: external data files, and the classes of ZipMap nodes.

Called by `onnx` before the file is given to a runtime. It walks the protobuf wire format itself, because the
`onnx` package is no dependency, and because what is checked must not depend on a library's own idea of containment.
"""

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from msgspec import Struct

from hyperion.schema.errors import ModelRefused

# Fields of onnx.proto that lead to tensors and nodes: message -> {field number: message}.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_MAX_DEPTH = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class OnnxReferences(Struct, frozen=True):
    """`external` are the locations of external tensors, as written in the file; `classes` the labels that each ZipMap
    output has, by the output's name."""

    external: frozenset[str]
    classes: dict[str, tuple[int | str, ...]]


def read_references(path: Path) -> OnnxReferences:
    """What the ONNX file refers to. Raises ModelRefused when it is empty or no protobuf."""
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise ModelRefused(f"{path.name} is empty; expected an ONNX model")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # Either thing needs its word in the file. Most models have neither, and need no walk.
            if data.find(b"location") < 0 and data.find(b"ZipMap") < 0:
                return OnnxReferences(frozenset(), {})
            found = _try_walk(data)
    if isinstance(found, str):
        raise ModelRefused(f"{path.name} is not a valid ONNX file: {found}")
    return found


def check_external_files(path: Path, external: frozenset[str]) -> None:
    """Raises ModelRefused unless every external file is a regular file within the model's directory, reached without
    symbolic links: a model must not be a way to read this machine's other files."""
    root = path.parent
    for location in sorted(external):
        parts = PurePosixPath(location).parts
        if not parts or location.startswith("/") or "\\" in location or "\0" in location or ".." in parts:
            raise ModelRefused(f'{path.name}: external data "{location}" leaves the model\'s directory')
        step = root
        for part in parts:
            step = step / part
            try:
                mode = os.lstat(step).st_mode
            except OSError as error:
                raise ModelRefused(
                    f'{path.name}: external data "{location}" is not there; put it beside the model file'
                ) from error
            if stat.S_ISLNK(mode):
                raise ModelRefused(
                    f'{path.name}: external data "{location}" is a symbolic link; put the file itself there'
                )
        if not stat.S_ISREG(mode):
            raise ModelRefused(f'{path.name}: external data "{location}" is not a regular file')


def _try_walk(data: mmap.mmap) -> OnnxReferences | str:
    """What the walk found, or why it failed: as text, because an exception would hold on to slices of the mapping,
    which can be closed only without them."""
    try:
        with memoryview(data) as view:
            return _walk(view)
    except (IndexError, ValueError) as error:
        return str(error)


def _walk(data: memoryview) -> OnnxReferences:
    external: set[str] = set()
    classes: dict[str, tuple[int | str, ...]] = {}
    pending: list[tuple[str, memoryview, int]] = [("model", data, 0)]
    while pending:
        message, body, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        children = _CHILDREN[message]
        for field, value in _fields(body):
            child = children.get(field)
            if child is None or not isinstance(value, memoryview):
                continue
            if child == "entry":
                _add_location(value, external)
            else:
                if child == "node":
                    _add_classes(value, classes)
                pending.append((child, value, depth + 1))
    return OnnxReferences(frozenset(external), classes)


def _add_location(entry: memoryview, external: set[str]) -> None:
    texts = {field: value for field, value in _fields(entry) if isinstance(value, memoryview)}
    if bytes(texts.get(1, b"")) == b"location":
        external.add(bytes(texts.get(2, b"")).decode())


def _add_classes(node: memoryview, classes: dict[str, tuple[int | str, ...]]) -> None:
    kind, outputs, attributes = b"", [], []
    for field, value in _fields(node):
        if not isinstance(value, memoryview):
            continue
        if field == 4:
            kind = bytes(value)
        elif field == 2:
            outputs.append(bytes(value).decode())
        elif field == 5:
            attributes.append(value)
    if kind != b"ZipMap" or not outputs:
        return
    labels: list[int | str] = []
    for attribute in attributes:
        for field, value in _fields(attribute):
            if field == 8:
                labels.extend(_integers(value) if isinstance(value, memoryview) else (_signed(value),))
            elif field == 9 and isinstance(value, memoryview):
                labels.append(bytes(value).decode())
    classes[outputs[0]] = tuple(labels)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of one message: integers for varints, views for everything else."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        value: int | memoryview
        if kind == _VARINT:
            value, at = _varint(data, at)
        else:
            if kind == _BYTES:
                size, at = _varint(data, at)
            elif kind in (_FIXED64, _FIXED32):
                size = 8 if kind == _FIXED64 else 4
            else:
                raise ValueError(f"byte {at} has wire type {kind}")
            if size > end - at:
                raise ValueError("it is cut short")
            value = data[at : at + size]
            at += size
        yield key >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _integers(packed: memoryview) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield _signed(value)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
