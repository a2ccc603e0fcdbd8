"""Check a manifest and write it down: what every version of the registry must keep to, whoever made it.

Called by `push` for what it made itself, and by whoever takes a manifest from elsewhere (the API, an import) before it
is stored or laid out on disk. Pure: reads and writes nothing.
"""

import math
import re
from collections.abc import Mapping

import msgspec

from hyperion.schema.errors import ModelRefused
from hyperion.schema.registry import FileEntry, Manifest
from hyperion.store.names import is_valid_name
from hyperion.store.repositories.hyperion_yaml import check_variables
from hyperion.store.repositories.options import check_options
from hyperion.store.versions.digest import is_digest_of

FORMATS = ("onnx", "python", "sklearn", "xgboost", "lightgbm", "torch", "mlflow-pyfunc")
MAX_FILES = 10_000  # a model has hundreds at most, and each costs a line of every listing
MAX_TOTAL_BYTES = 1 << 40
MAX_ITEMS = 256
MAX_KEY = 250  # MLflow's own limit on the names of metrics, parameters and tags
MAX_VALUE = 8_000
MAX_TEXT = 4_096
MAX_CARD = 256 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_METHODS = ("predict", "predict_proba", "predict_log_proba")


def check_manifest(manifest: Manifest) -> Manifest:
    """Returns `manifest`, or raises ModelRefused naming the field that is wrong and what was expected."""
    for field in ("model", "version"):
        if not is_valid_name(getattr(manifest, field)):
            raise _refuse(
                field,
                "1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit",
                getattr(manifest, field),
            )
    if manifest.format not in FORMATS:
        raise _refuse("format", f"one of {', '.join(FORMATS)}", manifest.format)
    check_files(manifest.files)
    if not is_digest_of(manifest.digest, manifest.files):
        raise _refuse("digest", "the digest of the files that are listed", manifest.digest)
    _check_entry(manifest)
    _check_run(manifest)
    for field in ("libraries", "parameters", "tags"):
        _check_texts(field, getattr(manifest, field))
    _check_texts("lineage.source", manifest.lineage.source)
    _check_metrics(manifest.metrics)
    for field in ("platform", "owner", "risk_class", "intended_use", "created_by"):
        _check_text(field, getattr(manifest, field), MAX_TEXT)
    for field in ("git_commit", "data_version", "parent"):
        _check_text(f"lineage.{field}", getattr(manifest.lineage, field), MAX_TEXT)
    _check_text("card", manifest.card, MAX_CARD)
    if not math.isfinite(manifest.created_at):
        raise _refuse("created_at", "seconds since 1970", manifest.created_at)
    return manifest


def check_files(files: tuple[FileEntry, ...]) -> None:
    """Raises ModelRefused unless `files` are sorted, distinct, and can be laid out under any directory."""
    if not 1 <= len(files) <= MAX_FILES:
        raise _refuse("files", f"1 to {MAX_FILES} files", len(files))
    folders: set[str] = set()
    before = ""
    for file in files:
        _check_file(file)
        if file.path <= before:
            raise _refuse("files", "paths in order, each once", file.path)
        before = file.path
        parts = file.path.split("/")
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    for file in files:
        if file.path in folders:
            raise _refuse("files", "no file that is a directory as well", file.path)
    if sum(file.size_bytes for file in files) > MAX_TOTAL_BYTES:
        raise _refuse("files", f"at most {MAX_TOTAL_BYTES >> 30} GiB in all", "more")


def content_of(manifest: Manifest) -> Manifest:
    """The manifest without what differs between two pushes of the same: who pushed it, and when."""
    return msgspec.structs.replace(manifest, created_by="", created_at=0.0)


def encode_manifest(manifest: Manifest) -> bytes:
    """The canonical JSON of a manifest: keys sorted, no spaces. What is signed, stored and compared.

    Fields that have their default are left out, so that a field which is added later changes no signature; what a
    default is must not change either.
    """
    return msgspec.json.encode(_without_defaults(manifest), order="sorted")


def _without_defaults(record: msgspec.Struct) -> dict[str, object]:
    plain: dict[str, object] = {}
    for field in msgspec.structs.fields(record):
        value = getattr(record, field.name)
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if value == default:
            continue
        plain[field.encode_name] = _without_defaults(value) if isinstance(value, msgspec.Struct) else value
    return plain


def decode_manifest(data: bytes) -> Manifest:
    """The manifest of its JSON, checked; ModelRefused says what is wrong with it."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelRefused(f"manifest: {error}") from error
    return check_manifest(manifest)


def runs_code(manifest: Manifest) -> bool:
    """True where loading the version runs code that is serialised in its files, so that it needs trust: pickles,
    TorchScript and torch.export archives, MLflow's python_function."""
    if manifest.format == "sklearn":
        return not manifest.entry.endswith(".skops")
    return manifest.format in ("torch", "mlflow-pyfunc")


def _check_file(file: FileEntry) -> None:
    path = file.path
    parts = path.split("/")
    # No part may climb, hide the list of a version, or be cut off by a C library; no file is too long to be made.
    if any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 255 for part in parts):
        raise _refuse("files", "a path of names under the version's root, without '.' and '..'", path)
    if not path.isprintable() or "\\" in path or len(path) > 1024:
        raise _refuse("files", "a path of at most 1024 printable characters without a backslash", path)
    if not _SHA256.fullmatch(file.sha256):
        raise _refuse(f"files: {path}: sha256", "64 hexadecimal digits in lower case", file.sha256)
    if not 0 <= file.size_bytes <= MAX_TOTAL_BYTES:
        raise _refuse(f"files: {path}: size_bytes", f"0 to {MAX_TOTAL_BYTES}", file.size_bytes)


def _check_entry(manifest: Manifest) -> None:
    entry = manifest.entry
    if manifest.format in ("python", "mlflow-pyfunc"):
        needed = "model.py" if manifest.format == "python" else "MLmodel"
        wanted = f"{entry}/{needed}" if entry else needed
        if wanted not in {file.path for file in manifest.files}:
            raise _refuse("entry", f"a directory with {needed} in it", entry)
    elif entry not in {file.path for file in manifest.files}:
        raise _refuse("entry", "one of the files", entry)


def _check_run(manifest: Manifest) -> None:
    """What decides how the version is run, with the rules of `hyperion.yaml`: it comes from whoever made the model."""
    options = check_options(msgspec.structs.asdict(manifest.options), "manifest: options", ModelRefused)
    if options.trust_pickle:
        raise ModelRefused(
            "manifest: options.trust_pickle: a version cannot grant trust to itself; sign it with a trusted key, or "
            "use --trust-pickle where it is served"
        )
    check_variables(options.env, "manifest: options", ModelRefused)
    _check_texts("options.labels", options.labels)
    for key, value in manifest.settings.items():
        if key == "outputs" and value in _METHODS:
            continue
        if key == "warmup_shapes" and _is_shapes(value):
            continue
        raise _refuse(f"settings.{key[:40]}", "outputs (a method) or warmup_shapes (a JSON object)", value)
    if manifest.signature is not None and not manifest.signature.inputs:
        raise _refuse("signature", "at least one input", "none")


def _is_shapes(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=dict[str, tuple[int, ...]])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _check_texts(field: str, values: Mapping[str, str]) -> None:
    if len(values) > MAX_ITEMS:
        raise _refuse(field, f"at most {MAX_ITEMS} entries", len(values))
    for key, value in values.items():
        if not key or len(key) > MAX_KEY or not key.isprintable():
            raise _refuse(field, f"names of 1 to {MAX_KEY} printable characters", key)
        _check_text(f"{field}.{key}", value, MAX_VALUE)


def _check_text(field: str, value: str, longest: int) -> None:
    if len(value) > longest:
        raise _refuse(field, f"at most {longest} characters", len(value))
    if "\0" in value or (not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value)):
        raise _refuse(field, "text without NUL characters or lone surrogates", "some")


def _check_metrics(metrics: Mapping[str, float]) -> None:
    _check_texts("metrics", dict.fromkeys(metrics, ""))
    for key, value in metrics.items():
        if not math.isfinite(value):
            raise _refuse(f"metrics.{key}", "a finite number", value)


def _refuse(field: str, expected: str, got: object) -> ModelRefused:
    shown = got if isinstance(got, int | float) else repr(str(got)[:120])
    return ModelRefused(f"manifest: {field}: expected {expected}, got {shown}")
