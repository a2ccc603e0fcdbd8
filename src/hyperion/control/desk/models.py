"""The verbs over the registry: versions are put once and never change, aliases move. Part of the desk."""

import contextlib
from collections.abc import Callable, Sequence

from hyperion.schema.errors import HyperionError, ModelRefused
from hyperion.schema.registry import FileEntry, Manifest
from hyperion.store import registry
from hyperion.store.blobs.directory import Blobs, Measured
from hyperion.store.database import Database
from hyperion.store.registry import ModelRow, VersionRow
from hyperion.store.versions.manifest import check_manifest
from hyperion.store.versions.signing import Trust, verify_signature
from hyperion.store.views import Registered, Verification


class Models:
    """`trust` says whose signatures count here."""

    def __init__(self, database: Database, blobs: Blobs, wake: Callable[[], None], trust: Trust) -> None:
        self.blobs = blobs
        self._wake = wake
        self._database = database
        self._trust = trust

    def put(self, manifest: Manifest, signature: str = "", *, alias: str = "", actor: str, reason: str = "") -> bool:
        """Register a version whose files are all here; False where this very version was there already.

        Raises `ModelRefused` for a manifest that is wrong, a file that was not uploaded or a signature that does not
        fit, `Conflict` where the version is there with another content.
        """
        check_manifest(manifest)
        absent = [file.path for file in manifest.files if not self.blobs.has(file.sha256)]
        if absent:
            raise ModelRefused(
                f"{manifest.model}@{manifest.version}: {len(absent)} of its files are not uploaded, first "
                f"{absent[0]!r}: PUT each to /api/v1/blobs/sha256:… first"
            )
        verify_signature(manifest, signature, self._trust)
        with self._database.write() as tx:
            added = registry.put_version(tx, manifest, actor=actor, reason=reason, signature=signature)
            if alias:
                registry.set_alias(tx, manifest.model, alias, manifest.version, actor=actor, reason=reason)
        if alias:
            self._wake()
        return added

    def missing(self, sha256s: Sequence[str]) -> list[str]:
        """Those blobs that are not here."""
        return [sha256 for sha256 in sha256s if not self.blobs.has(sha256)]

    def list_models(self, after: str = "", limit: int = 100) -> list[ModelRow]:
        """Models by name, those behind `after`."""
        with self._database.read() as tx:
            return list(registry.list_models(tx, after=after, limit=limit))

    def versions(self, model: str) -> tuple[list[VersionRow], dict[str, str], str]:
        """The versions of a model, its aliases, and the version that a push would get. No versions: not known."""
        with self._database.read() as tx:
            return (
                list(registry.list_versions(tx, model)),
                dict(registry.aliases(tx, model)),
                registry.next_version(tx, model),
            )

    def show(self, reference: str) -> Registered:
        """What `NAME@VERSION`, `NAME@ALIAS` or `NAME` (the newest) names. Raises `UnknownModel`."""
        with self._database.read() as tx:
            manifest = registry.resolve(tx, reference)
            aliases = registry.aliases(tx, manifest.model)
            signature = registry.get_signature(tx, manifest.model, manifest.version)
        names = tuple(sorted(alias for alias, version in aliases.items() if version == manifest.version))
        return Registered(manifest, signature, names)

    def set_alias(self, model: str, alias: str, version: str, *, actor: str, reason: str = "") -> None:
        """Let an alias name a version. Raises `UnknownModel` for the version, `ModelRefused` for the alias's name."""
        with self._database.write() as tx:
            registry.set_alias(tx, model, alias, version, actor=actor, reason=reason)
        self._wake()

    def verify(self, reference: str) -> Verification:
        """Read every file of a version and compare it with the manifest; judge the signature. Reads all the bytes."""
        found = self.show(reference)
        manifest = found.manifest
        problems = [message for file in manifest.files if (message := self._find_damage(file))]
        signed_by = ""
        try:
            check_manifest(manifest)
            signed_by = verify_signature(manifest, found.signature, self._trust)
        except HyperionError as error:
            problems.append(error.message)
        return Verification(
            manifest.model,
            manifest.version,
            manifest.digest,
            len(manifest.files),
            sum(file.size_bytes for file in manifest.files),
            bool(found.signature),
            signed_by,
            tuple(problems),
        )

    def _find_damage(self, file: FileEntry) -> str:
        try:
            with contextlib.closing(self.blobs.open(file.sha256)) as stream:
                for _ in Measured(stream, file.sha256, file.size_bytes).chunks():
                    continue
        except HyperionError as error:
            return f"{file.path}: {error.message}"
        return ""
