"""Blobs in an OCI image layout: a directory that skopeo, oras, crane and registries' own tools read.

Called like every other `Blobs`; `add_version` also writes a version's manifest as an OCI artifact into the index, so
that `skopeo copy oci:DIR:MODEL@VERSION docker://…` takes the whole version to a registry.
"""

import contextlib
import fcntl
import hashlib
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from hyperion.schema.errors import ModelRefused, StorageFailed
from hyperion.schema.registry import Manifest
from hyperion.store.blobs.directory import LocalBlobs, check_sha256, describe, sync_directory
from hyperion.store.reading import read_bytes
from hyperion.store.versions.manifest import check_manifest, encode_manifest

LAYOUT = {"imageLayoutVersion": "1.0.0"}
ARTIFACT_TYPE = "application/vnd.hyperion.model.v1"
CONFIG_TYPE = "application/vnd.hyperion.model.manifest.v1+json"
FILE_TYPE = "application/vnd.hyperion.model.file.v1"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_NAME = "org.opencontainers.image.ref.name"
_TITLE = "org.opencontainers.image.title"
_LIMIT_BYTES = 64 << 20


class OciBlobs(LocalBlobs):
    """Blobs in the layout at `root`, which is made where there is none: `blobs/sha256/abcdef…`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        try:
            root.mkdir(parents=True, exist_ok=True)
            if not (root / "oci-layout").exists():
                self._change_index(())
                self._write("oci-layout", LAYOUT)
        except OSError as error:
            raise StorageFailed(f"OCI layout {root.name!r}: cannot be made: {describe(error)}") from error
        layout = _read(root / "oci-layout")
        if layout.get("imageLayoutVersion") != LAYOUT["imageLayoutVersion"]:
            raise ModelRefused(f"OCI layout {root.name!r}: expected imageLayoutVersion 1.0.0 in oci-layout")

    def add_version(self, manifest: Manifest) -> str:
        """Names a version, whose files are here, in the index as `MODEL@VERSION`; returns its OCI digest."""
        check_manifest(manifest)
        for file in manifest.files:
            if not self.has(file.sha256):
                raise ModelRefused(f"{manifest.model}@{manifest.version}: {file.path}: its blob is not in this layout")
        name = f"{manifest.model}@{manifest.version}"
        content = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": self._put(encode_manifest(manifest), CONFIG_TYPE),
            "layers": [
                {
                    "mediaType": FILE_TYPE,
                    "digest": f"sha256:{file.sha256}",
                    "size": file.size_bytes,
                    "annotations": {_TITLE: file.path},
                }
                for file in manifest.files
            ],
        }
        entry = self._put(msgspec.json.encode(content, order="sorted"), MANIFEST_TYPE)
        entry |= {"artifactType": ARTIFACT_TYPE, "annotations": {_NAME: name}}
        self._change_index((entry,))
        return str(entry["digest"])

    def _path(self, sha256: str) -> Path:
        check_sha256(sha256)
        return self._root / "blobs" / "sha256" / sha256

    def _put(self, content: bytes, media_type: str) -> dict[str, Any]:
        sha256 = hashlib.sha256(content).hexdigest()
        self.put(io.BytesIO(content), sha256, len(content))
        return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": len(content)}

    def _change_index(self, entries: tuple[dict[str, Any], ...]) -> None:
        """Puts `entries` into the index, in place of those of the same name; one writer at a time, of any process."""
        with self._locked():
            path = self._root / "index.json"
            index: dict[str, Any] = (
                _read(path) if path.exists() else {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}
            )
            names = {_name_of(entry) for entry in entries}
            kept: list[dict[str, Any]] = index["manifests"]
            index["manifests"] = [*(old for old in kept if _name_of(old) not in names), *entries]
            self._write("index.json", index)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        temporary = self._root / f".{name}.{secrets.token_hex(8)}"
        with open(temporary, "xb") as file:
            file.write(msgspec.json.encode(content))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._root / name)
        sync_directory(self._root)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _name_of(entry: dict[str, Any]) -> object:
    return entry.get("annotations", {}).get(_NAME)


def _read(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(read_bytes(path, _LIMIT_BYTES), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelRefused(f"OCI layout: {path.name}: not what the layout's specification says: {error}") from error
