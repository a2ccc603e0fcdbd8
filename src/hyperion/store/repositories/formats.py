"""Tell what a single model file is, from its name and its first bytes. Nothing is loaded, nothing is executed.

Called by `discover` and by the readers of repositories. A file whose content does not fit its name is refused here,
with words; a loader's own error would come later, from another process, and say less.
"""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from hyperion.schema.errors import ModelRefused
from hyperion.store.reading import MIB, read_bytes, read_head

HEAD_BYTES = 64 * 1024
JSON_LIMIT_BYTES = 64 * MIB


class FileFormat(msgspec.Struct, frozen=True):
    """The loader's name, whether loading runs code that lies in the file, and how the file is serialised where one
    loader knows several ways ("" otherwise)."""

    format: str
    executable: bool = False
    serialization: str = ""


ONNX = FileFormat("onnx")
BY_SUFFIX: dict[str, FileFormat] = {
    ".onnx": ONNX,
    ".ubj": FileFormat("xgboost"),
    ".json": FileFormat("xgboost"),
    ".txt": FileFormat("lightgbm"),
    ".skops": FileFormat("sklearn", serialization="skops"),
    ".joblib": FileFormat("sklearn", executable=True, serialization="joblib"),
    ".pkl": FileFormat("sklearn", executable=True, serialization="pickle"),
    ".pickle": FileFormat("sklearn", executable=True, serialization="pickle"),
    ".pt2": FileFormat("torch", executable=True, serialization="export"),
    ".pt": FileFormat("torch", executable=True, serialization="torchscript"),
    ".ts": FileFormat("torch", executable=True, serialization="torchscript"),
}
# Names that XGBoost, LightGBM, KServe and MLflow give to either library's files: only the content can tell.
_TREES = frozenset({".bst", ".xgb", ".lgb", ".model"})
# Model files that people do have, and what to do with them.
_ELSEWHERE: dict[str, str] = {
    ".pb": "export it to ONNX with tf2onnx",
    ".h5": "export it to ONNX with tf2onnx",
    ".keras": "export it to ONNX with model.export('model.onnx', format='onnx')",
    ".tflite": "export it to ONNX with tf2onnx",
    ".plan": "serve the ONNX file that the TensorRT plan was built from",
    ".engine": "serve the ONNX file that the TensorRT engine was built from",
    ".pth": "save it with torch.export.save(..., 'model.pt2') or torch.jit.save(..., 'model.pt')",
    ".safetensors": "these are weights without a model; wrap them in a directory with a model.py",
    ".gguf": "wrap it in a directory with a model.py",
    ".mlmodel": "export it to ONNX",
    ".pmml": "export it to ONNX",
    ".cbm": "save it with CatBoost's save_model('model.onnx', format='onnx')",
}
_LFS = b"version https://git-lfs.github.com/spec/"
# The tags that a serialised onnx.ModelProto can begin with: fields 1-8, 14, 20, 25, 26 with their wire types.
_ONNX_FIRST = frozenset(b"\x08\x12\x1a\x22\x28\x32\x3a\x42\x72\xa2\xca\xd2")
# UBJSON: an object whose first key's length is an integer of some width; "learner" comes soon.
_XGBOOST_UBJ = re.compile(rb"\{[iUIlL].{0,4096}?learner", re.DOTALL)
_XGBOOST_JSON = re.compile(rb'\s*\{\s*("version"\s*:\s*\[[0-9,\s]*\]\s*,\s*)?"learner"\s*:')


def is_model_file(path: Path) -> bool:
    """True when the name says that this is a model file that we serve, and, for names that other files have as well
    (a `tokenizer.json`, `vocab.txt` or `tokenizer.model`), the content does, too."""
    suffix = path.suffix.lower()
    if (suffix not in BY_SUFFIX and suffix not in _TREES) or not path.is_file():
        return False
    if suffix not in _TREES and suffix not in (".json", ".txt"):
        return True
    head = read_head(path, HEAD_BYTES)
    if suffix != ".json" and head.startswith(b"tree"):
        return True
    return suffix != ".txt" and _is_xgboost(path, head)


def format_of(path: Path) -> FileFormat:
    """The format of a model file. ModelRefused when it is none that we serve, or not what its name says."""
    suffix = path.suffix.lower()
    if suffix in _TREES:
        suffix = ".txt" if read_head(path, HEAD_BYTES).startswith(b"tree") else ".ubj"
    known = BY_SUFFIX.get(suffix)
    if known is None:
        advice = _ELSEWHERE.get(suffix)
        if advice:
            raise ModelRefused(f"{path.name}: {suffix} files are not served as they are; {advice}")
        raise ModelRefused(
            f"{path.name}: not a model file that is known here; expected one of {', '.join(sorted(BY_SUFFIX))}, or a "
            "directory with a model.py, config.pbtxt, model-settings.json or MLmodel"
        )
    check_content(path, known.format, known.serialization)
    return known


def check_content(path: Path, loader: str, serialization: str = "") -> None:
    """Raises ModelRefused unless the first bytes are those of a file for `loader` in `serialization`."""
    head = read_head(path, HEAD_BYTES)
    if not head:
        raise ModelRefused(f"{path.name}: the file is empty")
    if head.startswith(_LFS):
        raise ModelRefused(f"{path.name}: this is a Git LFS pointer, not the model; run `git lfs pull`")
    check = _CHECKS.get(serialization or loader)
    if check is not None and not check[0](path, head):
        raise ModelRefused(f"{path.name}: {check[1]}")


def require_trust(path: Path, known: FileFormat, trusted: bool) -> None:
    """Raises ModelRefused when loading `path` runs code that lies in it and the operator has not said that it may."""
    if known.executable and not trusted:
        safe = {"sklearn": "save it with skops, or export it to ONNX", "torch": "export it to ONNX"}.get(
            known.format, ""
        )
        raise ModelRefused(
            f"{path.name}: loading this format runs whatever code lies in the file. If you trust who made it, start "
            f"with --trust-pickle{'; otherwise ' + safe if safe else ''}"
        )


def _is_xgboost(path: Path, head: bytes) -> bool:
    return _XGBOOST_UBJ.match(head) is not None or _is_xgboost_json(path, head)


def _is_xgboost_json(path: Path, head: bytes) -> bool:
    if _XGBOOST_JSON.match(head):
        return True
    if not head.lstrip().startswith(b"{") or path.stat().st_size > JSON_LIMIT_BYTES:
        return False
    try:
        keys = msgspec.json.decode(read_bytes(path, JSON_LIMIT_BYTES), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return False
    return "learner" in keys


def _is_zip(_path: Path, head: bytes) -> bool:
    return head.startswith(b"PK\x03\x04")


_CHECKS: dict[str, tuple[Callable[[Path, bytes], bool], str]] = {
    "onnx": (lambda _, head: head[0] in _ONNX_FIRST, "not an ONNX model: it does not begin like one"),
    "xgboost": (
        _is_xgboost,
        "not an XGBoost model: expected what save_model('model.ubj') or ('model.json') writes, with \"learner\" in it; "
        "the old binary format must be saved again",
    ),
    "lightgbm": (
        lambda _, head: head.startswith((b"tree\n", b"tree\r\n")),
        'not a LightGBM model: expected what save_model(...) writes, with "tree" as its first line',
    ),
    "skops": (_is_zip, "not a skops file: expected a ZIP archive as skops.io.dump writes it"),
    "export": (_is_zip, "not a torch.export archive: expected a ZIP archive as torch.export.save writes it"),
    "torchscript": (_is_zip, "not a TorchScript archive: expected a ZIP archive as torch.jit.save writes it"),
}
