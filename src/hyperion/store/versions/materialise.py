"""Lay a version out on disk for its runners: `MODEL/VERSION-DIGEST/`, and beside it the list of what must lie there.

Called by `control` before it starts a runner of a registered version. A directory appears complete or not at all;
its files are hard links to the blobs where that is possible. Contents are not read here: the runner does that, each
time that it loads (`runner/verify`).
"""

import contextlib
import os
import secrets
import shutil
from pathlib import Path

import msgspec

from hyperion.schema.errors import StorageFailed
from hyperion.schema.model import ModelOptions, ModelSpec
from hyperion.schema.registry import FileEntry, Manifest, VerifiedSpec
from hyperion.store.blobs.directory import Blobs, describe, sync_directory, write_blob
from hyperion.store.versions.manifest import check_manifest

_UNFINISHED = ".unfinished"
LIST_SUFFIX = ".files"


def materialise(
    manifest: Manifest,
    blobs: Blobs,
    root: Path,
    *,
    name: str,
    trust_pickle: bool = False,
    options: ModelOptions | None = None,
    anew: bool = False,
) -> VerifiedSpec:
    """Lays `manifest` out under `root` (`HOME/artifacts`), unless that was done before, and returns what its runners
    need. `name` is the endpoint's; `options` replaces those of the manifest; `trust_pickle` is the operator's word.
    With `anew` it is laid out again where it was: its files may have been damaged, and its blobs mended since.

    Raises ModelRefused (the manifest is not sound, a blob is not there) or StorageFailed (disk or network).
    """
    check_manifest(manifest)
    folder = folder_of(manifest, root)
    if anew or not folder.is_dir():
        try:
            _lay_out(manifest, blobs, root, folder, anew)
        except OSError as error:
            raise StorageFailed(
                f"{manifest.model}@{manifest.version}: its files cannot be laid out: {describe(error)}"
            ) from error
    spec = ModelSpec(
        name=name,
        version=manifest.version,
        format=manifest.format,
        path=str(folder / manifest.entry),
        digest=manifest.digest,
        options=msgspec.structs.replace(options or manifest.options, trust_pickle=trust_pickle),
        signature=manifest.signature,
        settings=manifest.settings,
        platform=manifest.platform,
    )
    return VerifiedSpec(spec, str(folder), manifest.files)


def discard(manifest: Manifest, root: Path) -> bool:
    """Removes what `materialise` laid out; False where nothing was. Runners that have it loaded go on."""
    folder = folder_of(manifest, root)
    gone = _name_unfinished(root)
    try:
        os.rename(folder, gone)
    except FileNotFoundError:
        return False
    shutil.rmtree(gone)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_list_of(folder))
    return True


def folder_of(manifest: Manifest, root: Path) -> Path:
    """Where a version lies. A part of its digest is in the name, so that no other content can stand in its place."""
    return root.absolute() / manifest.model / f"{manifest.version}-{manifest.digest.removeprefix('sha256:')[:12]}"


def _lay_out(manifest: Manifest, blobs: Blobs, root: Path, folder: Path, anew: bool) -> None:
    unfinished = _name_unfinished(root)
    unfinished.mkdir()
    try:
        for file in manifest.files:
            _place(file, blobs, unfinished.parent, unfinished / file.path)
        for parent, _, _ in os.walk(unfinished):
            sync_directory(Path(parent))
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write_list(manifest, folder, root)
        _put_in_place(unfinished, folder, root, anew)
        sync_directory(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _put_in_place(unfinished: Path, folder: Path, root: Path, anew: bool) -> None:
    """Another process may do the same at the same time; what it puts there is the same, unless that is to be mended."""
    for last in (False, False, False, True):
        if anew:
            gone = _name_unfinished(root)
            with contextlib.suppress(FileNotFoundError):
                os.rename(folder, gone)  # runners that have it loaded go on
            shutil.rmtree(gone, ignore_errors=True)
        try:
            os.rename(unfinished, folder)
            return
        except OSError:
            if folder.is_dir() and (last or not anew):
                return
            if last:
                raise


def _place(file: FileEntry, blobs: Blobs, unfinished: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = blobs.path_or_none(file.sha256)
    if source is not None:
        # Across file systems, or where links are not allowed or too many: copied below.
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    with blobs.open(file.sha256) as stream:
        write_blob(target, stream, file.sha256, file.size_bytes, unfinished)


def _write_list(manifest: Manifest, folder: Path, root: Path) -> None:
    """The list of files for the runner, which checks it against the digest: beside the directory, because nothing but
    the version's own files may lie in it, and on disk, because it may be longer than a process's environment."""
    temporary = _name_unfinished(root)
    with open(temporary, "xb") as file:
        file.write(msgspec.json.encode(manifest.files))
        file.flush()
        os.fchmod(file.fileno(), 0o444)
        os.fsync(file.fileno())
    os.replace(temporary, _list_of(folder))


def _list_of(folder: Path) -> Path:
    return folder.with_name(folder.name + LIST_SUFFIX)


def _name_unfinished(root: Path) -> Path:
    """A name that nobody else has, for what is not yet or no more complete."""
    folder = root.absolute() / _UNFINISHED
    folder.mkdir(parents=True, exist_ok=True)
    return folder / secrets.token_hex(8)
