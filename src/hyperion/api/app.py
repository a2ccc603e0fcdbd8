"""The management API: FastAPI over what control knows and what the desk does. Decides nothing."""

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, FastAPI, Path
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from pydantic.json_schema import models_json_schema

from hyperion import __version__
from hyperion.api.callers import Deployer, Reader
from hyperion.api.guard import FindKey, Guard
from hyperion.api.metrics import collect_metrics
from hyperion.api.pages import write_docs_page, write_status_page
from hyperion.api.problems import RESPONSES, add_problem_handlers
from hyperion.api.records import (
    Management,
    ModelView,
    Problem,
    ReplicaView,
    SettingView,
    StatusView,
    desk_of,
    view_models,
    view_processes,
    view_replicas,
)
from hyperion.api.routes_audit import add_key_routes, add_ledger_routes
from hyperion.api.routes_batches import add_batch_routes
from hyperion.api.routes_endpoints import add_endpoint_routes
from hyperion.api.routes_jobs import add_job_routes
from hyperion.api.routes_labels import add_label_routes
from hyperion.api.routes_registry import add_blob_routes, add_registry_routes
from hyperion.api.routes_rollouts import add_rollout_routes
from hyperion.api.routes_tenants import add_issuer_routes, add_resource_routes, add_tenant_routes
from hyperion.api.routes_usage import add_usage_routes
from hyperion.schema.errors import UnknownModel
from hyperion.store.resource_yaml import KINDS

# The pages are whole in themselves; nothing of them may come from, or go to, another host.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_NAME = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"  # as `store/names` has it
Name = Annotated[str, Path(description="name of the model", max_length=128)]


def make_app(management: Management, token: str, names: tuple[str, ...]) -> FastAPI:
    """Return the application. `names` are the Host names under which it may be called."""
    app = FastAPI(
        title="Hyperion management API",
        version=__version__,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses=RESPONSES,
    )
    app.add_middleware(Guard, token=token, names=names, find_key=_make_finder(management))
    add_problem_handlers(app)
    _add_reads(app, management)
    _add_commands(app, management)
    for tag, add_routes in _GROUPS:
        router = APIRouter(prefix="/api/v1", tags=[tag])
        add_routes(router, management)
        app.include_router(router)
    _add_open_routes(app, management)
    _complete_document(app)
    return app


_GROUPS = (
    ("endpoints", add_endpoint_routes),
    ("rollouts", add_rollout_routes),
    ("registry", add_registry_routes),
    ("registry", add_blob_routes),
    ("labels", add_label_routes),
    ("jobs", add_job_routes),
    ("batch jobs", add_batch_routes),
    ("resources", add_resource_routes),
    ("tenants", add_tenant_routes),
    ("tenants", add_usage_routes),
    ("issuers", add_issuer_routes),
    ("keys", add_key_routes),
    ("ledger", add_ledger_routes),
)


def _make_finder(management: Management) -> FindKey:
    async def find(secret: str) -> tuple[str, Iterable[str]] | None:
        row = await run_in_threadpool(desk_of(management).audit.find_key, secret)
        return None if row is None else (f"key:{row.id}", row.scopes)

    return find


def _complete_document(app: FastAPI) -> None:
    """Add to the OpenAPI document what FastAPI cannot see: the records of resources, problems, and the token."""
    write = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = write()
            parts = document.setdefault("components", {})
            schemas = parts.setdefault("schemas", {})
            _, resources = msgspec.json.schema_components(KINDS.values(), ref_template="#/components/schemas/{name}")
            _complete_resources(resources)
            template = "#/components/schemas/{model}"
            _, problems = models_json_schema([(Problem, "serialization")], ref_template=template)
            schemas |= resources | problems["$defs"]
            parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"token": []}]
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _complete_resources(schemas: dict[str, Any]) -> None:
    """Say of resources what is checked only after they are read: their names, and that they name their kind."""
    schemas["Metadata"]["properties"]["name"] |= {"pattern": _NAME}
    for kind in KINDS:
        schema = schemas[kind]
        schema["properties"]["apiVersion"]["enum"] = [schema["properties"]["apiVersion"]["default"]]
        schema["required"] = ["kind", *schema["required"]]


def _add_reads(app: FastAPI, management: Management) -> None:
    def models() -> list[ModelView]:
        return view_models(management.snapshot(), management.config.public_url)

    @app.get("/api/v1/status", tags=["platform"])
    async def get_status(_caller: Reader) -> StatusView:
        """The platform at a glance."""
        children = management.children()
        return StatusView(
            version=__version__,
            ready=management.is_ready(),
            url=management.config.public_url,
            snapshot_version=management.snapshot().version,
            gateways=management.workers(),
            rejected=management.rejected(),
            models=models(),
            replicas=view_replicas(children),
            processes=view_processes(children),
        )

    @app.get("/api/v1/models", tags=["models"])
    async def list_models(_caller: Reader) -> list[ModelView]:
        """Every model, served or not, with its versions, signatures and replicas."""
        return models()

    @app.get("/api/v1/models/{model}", tags=["models"])
    async def get_model(model: Name, _caller: Reader) -> ModelView:
        """One model."""
        for view in models():
            if view.name == model:
                return view
        raise UnknownModel(f'model "{model}" is not known here; GET /api/v1/models lists those that are')

    @app.get("/api/v1/replicas", tags=["models"])
    async def list_replicas(_caller: Reader) -> list[ReplicaView]:
        """Every runner process, and how it fares."""
        return view_replicas(management.children())

    @app.get("/api/v1/config", tags=["platform"])
    async def list_settings(_caller: Reader) -> list[SettingView]:
        """Every setting, its value, and where that came from."""
        return [SettingView(key=key, value=value, source=source) for key, value, source in management.config.settings]


def _add_commands(app: FastAPI, management: Management) -> None:
    @app.post("/api/v1/models/{model}/load", tags=["models"])
    async def load_model(model: Name, _caller: Deployer) -> ModelView:
        """Load the model, or load it again from where it lies; answers when every gateway serves it.

        What served before goes on serving until the new one is ready, and for good where it cannot be loaded.
        """
        await management.load(model, {})
        views = view_models(management.snapshot(), management.config.public_url)
        return next(view for view in views if view.name == model)

    @app.post("/api/v1/models/{model}/unload", tags=["models"], status_code=204, response_class=Response)
    async def unload_model(model: Name, _caller: Deployer) -> None:
        """Stop serving the model; answers when no gateway routes to it any more."""
        await management.unload(model)


def _add_open_routes(app: FastAPI, management: Management) -> None:
    @app.get("/healthz", include_in_schema=False)
    @app.get("/livez", include_in_schema=False)
    async def get_live() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.get("/readyz", include_in_schema=False)
    async def get_ready() -> PlainTextResponse:
        ready = management.is_ready()
        return PlainTextResponse("ok\n" if ready else "not ready\n", 200 if ready else 503)

    @app.get("/metrics", include_in_schema=False)
    async def get_metrics() -> Response:
        text = await collect_metrics(management)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def get_page() -> HTMLResponse:
        return HTMLResponse(write_status_page(), headers=_PAGE_HEADERS)

    @app.get("/api/docs", include_in_schema=False)
    async def get_docs() -> HTMLResponse:
        return HTMLResponse(write_docs_page(app.openapi()), headers=_PAGE_HEADERS)
