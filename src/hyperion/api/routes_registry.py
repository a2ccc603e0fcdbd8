"""`/api/v1/registry` and `/api/v1/blobs`: versions of models, their aliases, and the files that they are made of."""

from collections.abc import AsyncIterator
from typing import Annotated, Final

import anyio.from_thread
import msgspec
from fastapi import APIRouter, Path, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.requests import Request
from fastapi.responses import JSONResponse, Response

from hyperion.api.callers import Deployer, Reader
from hyperion.api.records import Management, desk_of
from hyperion.api.records_registry import (
    AliasRequest,
    AliasView,
    ManifestView,
    MissingRequest,
    MissingView,
    PushRequest,
    PushView,
    RegisteredModelList,
    VerificationView,
    VersionList,
    view_model,
    view_registered,
    view_verification,
    view_version,
)
from hyperion.schema.errors import MalformedRequest, TooLarge
from hyperion.schema.registry import Manifest

MAX_BLOB_BYTES: Final = 1 << 40
PAGE_MAX: Final = 1_000
Model = Annotated[str, Path(description="name of the model", max_length=128)]
Version = Annotated[str, Path(description="a version, or an alias of one", max_length=128)]
Alias = Annotated[str, Path(max_length=128)]
Digest = Annotated[str, Path(description="sha256:HEX", pattern=r"^sha256:[0-9a-f]{64}$")]


def add_registry_routes(router: APIRouter, management: Management) -> None:
    """Add the routes."""
    _add_reads(router, management)

    @router.post("/registry/models/{model}/versions", status_code=201)
    def push_version(model: Model, caller: Deployer, body: PushRequest, response: Response) -> PushView:
        """Register a version for ever; 200 where this very version was there already."""
        try:
            manifest = msgspec.convert(body.manifest, Manifest)
        except msgspec.ValidationError as error:
            raise MalformedRequest(f"manifest: {error}") from error
        if manifest.model != model:
            raise MalformedRequest(
                f"manifest: model: expected {model!r}, as the path says, got {manifest.model[:80]!r}"
            )
        created = desk_of(management).models.put(
            manifest, body.signature, alias=body.alias, actor=caller.name, reason=body.reason
        )
        response.status_code = 201 if created else 200
        return PushView(model=model, version=manifest.version, digest=manifest.digest, created=created)

    @router.put("/registry/models/{model}/aliases/{alias}")
    def set_alias(model: Model, alias: Alias, caller: Deployer, body: AliasRequest) -> AliasView:
        """Let an alias name a version. Endpoints that name the alias begin a rollout to it."""
        desk_of(management).models.set_alias(model, alias, body.version, actor=caller.name, reason=body.reason)
        return AliasView(model=model, alias=alias, version=body.version)

    @router.post("/registry/models/{model}/versions/{version}/verify")
    def verify_version(model: Model, version: Version, _caller: Reader) -> VerificationView:
        """Read every file of a version again, and judge its signature."""
        return view_verification(desk_of(management).models.verify(f"{model}@{version}"))


def _add_reads(router: APIRouter, management: Management) -> None:
    @router.get("/registry/models")
    def list_registered(
        _caller: Reader,
        after: Annotated[str, Query(max_length=128)] = "",
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
    ) -> RegisteredModelList:
        """Models by name, with their newest version and their aliases."""
        rows = desk_of(management).models.list_models(after, limit)
        return RegisteredModelList(
            items=[view_model(row) for row in rows], next=rows[-1].name if len(rows) == limit else None
        )

    @router.get("/registry/models/{model}")
    def list_versions(model: Model, _caller: Reader) -> VersionList:
        """The versions of a model, newest first; none for a model that was never pushed."""
        rows, aliases, following = desk_of(management).models.versions(model)
        return VersionList(
            model=model, items=[view_version(row) for row in rows], aliases=aliases, next_version=following
        )

    @router.get("/registry/models/{model}/versions/{version}")
    def get_version(model: Model, version: Version, _caller: Reader) -> ManifestView:
        """One version with its manifest."""
        return view_registered(desk_of(management).models.show(f"{model}@{version}"))


def add_blob_routes(router: APIRouter, management: Management) -> None:
    """Add the routes."""

    @router.post("/blobs/missing")
    def find_missing(_caller: Deployer, body: MissingRequest) -> MissingView:
        """Say which of these SHA-256 (in hexadecimal) are not here, so that only they are uploaded."""
        return MissingView(missing=desk_of(management).models.missing(body.sha256))

    @router.head("/blobs/{digest}", response_class=Response)
    def has_blob(digest: Digest, _caller: Reader) -> Response:
        """200 where the blob is here, 404 where it is not."""
        here = desk_of(management).models.blobs.has(digest.removeprefix("sha256:"))
        return Response(status_code=200 if here else 404)

    @router.put("/blobs/{digest}", status_code=201, response_class=Response)
    async def put_blob(digest: Digest, caller: Deployer, request: Request) -> Response:
        """Upload a file. It goes to the disk as it comes, and is kept only if its content has this digest."""
        del caller
        size = _read_length(request)
        chunks = request.stream()
        blobs = desk_of(management).models.blobs
        body = BodyStream(chunks)
        await run_in_threadpool(blobs.put, body, digest.removeprefix("sha256:"), size)  # type: ignore[arg-type]
        async for _ in chunks:
            pass  # of a blob that is here already: unread, it would make the connection end before the answer arrives
        return JSONResponse({"digest": digest, "size_bytes": size}, 201)


def _read_length(request: Request) -> int:
    text = request.headers.get("content-length", "")
    if not text.isdecimal():
        raise MalformedRequest("content-length is needed: say how large the blob is")
    size = int(text)
    if size > MAX_BLOB_BYTES:
        raise TooLarge(f"a blob may have {MAX_BLOB_BYTES >> 30} GiB, this one has {size >> 30}")
    return size


class BodyStream:
    """A request's body as a stream that a worker thread reads: each read waits for the event loop to have more."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, b"" at the end."""
        if not self._rest:
            self._rest = anyio.from_thread.run(self._next)
        if size < 0 or size >= len(self._rest):
            taken, self._rest = self._rest, b""
        else:
            taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    async def _next(self) -> bytes:
        async for chunk in self._chunks:
            if chunk:
                return chunk
        return b""
