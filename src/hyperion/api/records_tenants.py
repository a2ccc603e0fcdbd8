"""What the API answers about tenants and issuers, as pydantic models."""

from typing import Any, Literal

import msgspec
from pydantic import BaseModel, Field

from hyperion.schema.resource import API_VERSION
from hyperion.store.views import IssuerFound, TenantFound


class TenantStatus(BaseModel):
    """What is, beside what is to be."""

    generation: int = Field(description="grows with every change of the spec")
    created_at: float
    updated_at: float
    live_keys: int = Field(description="API keys that are neither expired nor revoked")


class TenantView(BaseModel):
    """A tenant: the resource, which can be applied again, and its status."""

    apiVersion: str = API_VERSION  # noqa: N815
    kind: Literal["Tenant"] = "Tenant"
    metadata: dict[str, Any]
    spec: dict[str, Any]
    status: TenantStatus


class TenantList(BaseModel):
    """Tenants by name."""

    items: list[TenantView]
    next: str | None = Field(default=None, description="give it as `after` for those behind; null where there are none")


class IssuerStatus(BaseModel):
    """What is, beside what is to be."""

    generation: int = Field(description="grows with every change of the spec")
    created_at: float
    updated_at: float
    keys: list[str] = Field(description="the ids (`kid`) of the public keys that count")
    read_at: float | None = Field(description="when they were last read; null for never")
    problem: str = Field(description="why the last attempt failed; the keys of the one before count on")


class IssuerView(BaseModel):
    """An issuer: the resource, which can be applied again, and its status."""

    apiVersion: str = API_VERSION  # noqa: N815
    kind: Literal["Issuer"] = "Issuer"
    metadata: dict[str, Any]
    spec: dict[str, Any]
    status: IssuerStatus


class IssuerList(BaseModel):
    """Issuers by name."""

    items: list[IssuerView]
    next: str | None = Field(default=None, description="give it as `after` for those behind; null where there are none")


def view_tenant(found: TenantFound) -> TenantView:
    """Return the view."""
    row = found.row
    return TenantView(
        metadata=msgspec.to_builtins(row.resource.metadata),
        spec=msgspec.to_builtins(row.resource.spec),
        status=TenantStatus(
            generation=row.generation,
            created_at=row.created_at,
            updated_at=row.updated_at,
            live_keys=found.live_keys,
        ),
    )


def view_issuer(found: IssuerFound) -> IssuerView:
    """Return the view."""
    row, state = found.row, found.state
    return IssuerView(
        metadata=msgspec.to_builtins(row.resource.metadata),
        spec=msgspec.to_builtins(row.resource.spec),
        status=IssuerStatus(
            generation=row.generation,
            created_at=row.created_at,
            updated_at=row.updated_at,
            keys=list(state.kids),
            read_at=state.read_at or None,
            problem=state.problem,
        ),
    )
