"""`hyperion model push NAME PATH`: describe what lies there, upload what the registry has not got, register it."""

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import click

from hyperion.cli.admin import Admin, add_connection, name_actor
from hyperion.cli.show import print_json
from hyperion.schema.errors import Conflict, ModelRefused, UnknownModel
from hyperion.schema.registry import FileEntry, Manifest

_ATTEMPTS = 5  # pushes at the same time, each of which takes the next version
_MLFLOW = ("models:/", "runs:/")
_CARD_BYTES = 1 << 20


@click.command("push", short_help="Register a version of a model.")
@click.argument("name")
@click.argument("path", required=False)
@click.option("--version", help="[default: one more than the newest]")
@click.option("--metric", "metrics", multiple=True, metavar="NAME=NUMBER")
@click.option("--tag", "tags", multiple=True, metavar="NAME=TEXT")
@click.option("--param", "params", multiple=True, metavar="NAME=TEXT", help="a parameter of the training")
@click.option("--card", type=click.Path(exists=True, dir_okay=False), help="the model card, a text file")
@click.option("--git-commit", help="of the code  [default: that of the repository around PATH]")
@click.option("--data-version", default="", help="of the data, as text; dvc:PATH is what DVC has noted of PATH")
@click.option("--data", type=click.Path(), help="data that DVC tracks: its hash becomes the data version")
@click.option("--parent", default="", help="MODEL@VERSION that this one was made from")
@click.option("--owner", default="", help="who answers for it")
@click.option("--risk-class", default="", help="for example that of the EU AI Act")
@click.option("--intended-use", default="", help="what it may be used for")
@click.option("--alias", default="", help="an alias to move to it")
@click.option("--sign-key", type=click.Path(exists=True, dir_okay=False), help="private key (PEM) to sign it with")
@click.option("--sign-password", envvar="HYPERION_SIGN_PASSWORD", default="", help="of that key")
@click.option("--sign-certificate", default="", help="certificate (PEM) of that key")
@click.option("--source-version", default="", help="which of the numbered versions at PATH")
@click.option("--from-mlflow", metavar="URI", help="tracking store of MLflow, or models:/… or runs:/… itself")
@click.option("--from-dvc", is_flag=True, help="PATH is tracked by DVC: check it against what DVC has noted")
@click.option("--reason", default="", help="why; the ledger keeps it")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
@add_connection
def push(admin: Admin, name: str, path: str | None, as_json: bool, **said: Any) -> None:
    """Register what lies at PATH (a model file or directory of any format that is served) as a version of the model
    NAME. A version never changes. With MLflow, PATH is models:/NAME/VERSION, models:/NAME@ALIAS or runs:/ID/PATH.

    Only files that the registry has not got are uploaded.
    """
    with tempfile.TemporaryDirectory(prefix="hyperion-") as folder:
        for attempt in range(_ATTEMPTS):
            version = said["version"] or _find_next(admin, name)
            prepared = _prepare(name, version, path, Path(folder) / str(attempt), said)
            manifest, sources = prepared.manifest, prepared.sources
            signature = _sign(manifest, said)
            sent = upload_missing(admin, sources)
            try:
                done = register(admin, manifest, signature=signature, alias=said["alias"], reason=said["reason"])
                sent += 0 if done["created"] else mend(admin, manifest, sources)
                break
            except Conflict:
                if said["version"] or attempt == _ATTEMPTS - 1:
                    raise
    if as_json:
        print_json({**done, "uploaded_files": sent})
        return
    what = "registered" if done["created"] else "its files were sent again" if sent else "was there already"
    size = sum(file.size_bytes for file in manifest.files)
    print(f"{name}@{done['version']}: {what}, {len(manifest.files)} files, {size:,} bytes, {done['digest']}")


def upload_missing(admin: Admin, sources: Sequence[tuple[FileEntry, Path]]) -> int:
    """Upload each file that the registry has not got, once, and return how many these were."""
    files = {file.sha256: (file, path) for file, path in sources}
    absent = admin.post("blobs", "missing", body={"sha256": list(files)})["missing"]
    total = sum(files[sha256][0].size_bytes for sha256 in absent)
    with _show_progress(total) as advance:
        for sha256 in absent:
            file, path = files[sha256]
            with open(path, "rb") as stream:
                admin.upload(sha256, Told(stream, advance), file.size_bytes)  # type: ignore[arg-type]
    return len(absent)


def mend(admin: Admin, manifest: Manifest, sources: Sequence[tuple[FileEntry, Path]]) -> int:
    """Upload the files of a version that was there already once more, if any of them is damaged there; how many."""
    if admin.post("registry", "models", manifest.model, "versions", manifest.version, "verify")["ok"]:
        return 0
    for file, path in sources:
        with open(path, "rb") as stream:
            admin.upload(file.sha256, stream, file.size_bytes)
    return len(sources)


class Told:
    """A file that tells how much of it was read."""

    def __init__(self, stream: BinaryIO, advance: Any) -> None:
        self._stream, self._advance = stream, advance

    def read(self, size: int = -1) -> bytes:
        """As of the file."""
        data = self._stream.read(size)
        self._advance(len(data))
        return data


@contextlib.contextmanager
def _show_progress(total: int) -> Iterator[Any]:
    """Yields what is told of bytes that went; a bar, where somebody sees it."""
    if not sys.stderr.isatty() or not total:
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("upload", total=total)
        yield lambda count: progress.advance(task, count)


def _find_next(admin: Admin, name: str) -> str:
    try:
        return str(admin.get("registry", "models", name)["next_version"])
    except UnknownModel:
        return "1"


def _prepare(name: str, version: str, path: str | None, folder: Path, said: dict[str, Any]) -> Any:
    from hyperion.store.versions.import_dvc import prepare_dvc_push, resolve_data_version
    from hyperion.store.versions.push import Details, prepare_push

    data = f"dvc:{said['data']}" if said["data"] else said["data_version"]
    details = Details(
        metrics=_read_metrics(said["metrics"]),
        parameters=_read_pairs("--param", said["params"]),
        tags=_read_pairs("--tag", said["tags"]),
        git_commit=said["git_commit"],
        data_version=resolve_data_version(data),
        parent=said["parent"],
        owner=said["owner"],
        risk_class=said["risk_class"],
        intended_use=said["intended_use"],
        card=_read_card(said["card"]),
        created_by=name_actor(),
        created_at=time.time(),
    )
    uri = said["from_mlflow"] or ""
    if path is None and not uri:
        raise click.UsageError("give PATH, where the model lies")
    if uri or str(path).startswith(_MLFLOW):
        from hyperion.store.versions.import_mlflow import prepare_mlflow_push

        reference, tracking = (uri, "") if path is None else (path, uri)
        folder.mkdir()
        return prepare_mlflow_push(name, version, reference, folder, details, tracking_uri=tracking)
    prepare = prepare_dvc_push if said["from_dvc"] else prepare_push
    return prepare(name, version, Path(str(path)), details, source_version=said["source_version"])


def _sign(manifest: Manifest, said: dict[str, Any]) -> str:
    if not said["sign_key"]:
        return ""
    from hyperion.store.versions.signing import SigningKey, sign_manifest

    return sign_manifest(manifest, SigningKey(said["sign_key"], said["sign_password"], said["sign_certificate"]))


def register(
    admin: Admin, manifest: Manifest, *, signature: str = "", alias: str = "", reason: str = ""
) -> dict[str, Any]:
    """Post a version whose blobs are uploaded."""
    import msgspec

    body = {"manifest": msgspec.to_builtins(manifest), "signature": signature, "alias": alias, "reason": reason}
    done: dict[str, Any] = admin.post("registry", "models", manifest.model, "versions", body=body)
    return done


def _read_pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        key, mark, value = text.partition("=")
        if not (key and mark):
            raise click.UsageError(f"{option} {text}: expected NAME=VALUE")
        pairs[key] = value
    return pairs


def _read_metrics(given: Sequence[str]) -> dict[str, float]:
    metrics = {}
    for key, text in _read_pairs("--metric", given).items():
        try:
            metrics[key] = float(text)
        except ValueError:
            raise click.UsageError(f"--metric {key}={text}: expected a number") from None
    return metrics


def _read_card(path: str | None) -> str:
    if path is None:
        return ""
    try:
        data = Path(path).read_bytes()
        return data[:_CARD_BYTES].decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelRefused(f"--card {path}: expected a text file in UTF-8: {error}") from error
