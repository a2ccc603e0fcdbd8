"""What the API takes and answers about the registry, as pydantic models."""

from typing import Any

import msgspec
from pydantic import BaseModel, Field

from hyperion.store.registry import ModelRow, VersionRow
from hyperion.store.views import Registered, Verification


class RegisteredModelView(BaseModel):
    """A model in the list."""

    name: str
    versions: int
    newest: str
    aliases: dict[str, str]
    updated_at: float


class RegisteredModelList(BaseModel):
    """Models by name."""

    items: list[RegisteredModelView]
    next: str | None = Field(default=None, description="give it as `after` for those behind; null where there are none")


class RegisteredVersionView(BaseModel):
    """A version in the list."""

    model: str
    version: str
    number: int
    digest: str
    format: str
    signed: bool
    created_by: str
    created_at: float
    aliases: list[str] = []


class VersionList(BaseModel):
    """The versions of a model, newest first. `next_version` is what a push without a version would get."""

    model: str
    items: list[RegisteredVersionView]
    aliases: dict[str, str]
    next_version: str


class ManifestView(BaseModel):
    """One version, whole: its manifest as it was pushed, its signature, and the aliases that name it now."""

    model: str
    version: str
    digest: str
    aliases: list[str]
    signed: bool
    signature: str
    manifest: dict[str, Any]


class PushRequest(BaseModel):
    """A version whose blobs are uploaded."""

    manifest: dict[str, Any] = Field(description="every file with digest and size, and what is known of the version")
    signature: str = Field(default="", max_length=1 << 20)
    alias: str = Field(default="", max_length=128, description="an alias to move to it in the same transaction")
    reason: str = Field(default="", max_length=1_000)

    model_config = {"extra": "forbid"}


class PushView(BaseModel):
    """What a push did."""

    model: str
    version: str
    digest: str
    created: bool = Field(description="false where this very version was there already")


class AliasRequest(BaseModel):
    """Which version an alias is to name."""

    version: str = Field(max_length=128)
    reason: str = Field(default="", max_length=1_000)

    model_config = {"extra": "forbid"}


class AliasView(BaseModel):
    """What an alias names."""

    model: str
    alias: str
    version: str


class VerificationView(BaseModel):
    """What a full reading of a version found."""

    model: str
    version: str
    digest: str
    files: int
    size_bytes: int
    signed: bool
    signed_by: str = Field(description="the trusted key's name; empty where there is none, or none was asked")
    ok: bool
    problems: list[str]


class MissingRequest(BaseModel):
    """Which blobs somebody has."""

    sha256: list[str] = Field(max_length=20_000)

    model_config = {"extra": "forbid"}


class MissingView(BaseModel):
    """Those that are not here: upload them."""

    missing: list[str]


def view_model(row: ModelRow) -> RegisteredModelView:
    """Return the view."""
    return RegisteredModelView.model_validate(msgspec.to_builtins(row))


def view_version(row: VersionRow) -> RegisteredVersionView:
    """Return the view."""
    return RegisteredVersionView.model_validate(msgspec.to_builtins(row))


def view_registered(found: Registered) -> ManifestView:
    """Return the view."""
    manifest = found.manifest
    return ManifestView(
        model=manifest.model,
        version=manifest.version,
        digest=manifest.digest,
        aliases=list(found.aliases),
        signed=bool(found.signature),
        signature=found.signature,
        manifest=msgspec.to_builtins(manifest),
    )


def view_verification(found: Verification) -> VerificationView:
    """Return the view."""
    return VerificationView(**msgspec.to_builtins(found), ok=not found.problems)
