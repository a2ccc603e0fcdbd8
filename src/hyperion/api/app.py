"""The management API: FastAPI over what control knows. Reads, and asks for loads and unloads; decides nothing."""

from typing import Annotated, Any

from fastapi import FastAPI, Path
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from hyperion import __version__
from hyperion.api.guard import Guard
from hyperion.api.metrics import collect_metrics
from hyperion.api.pages import write_docs_page, write_status_page
from hyperion.api.records import (
    Management,
    ModelView,
    Problem,
    ReplicaView,
    SettingView,
    StatusView,
    view_models,
    view_processes,
    view_replicas,
)
from hyperion.schema.errors import HyperionError, UnknownModel

_STATUSES = {"unknown_model": 404, "model_refused": 422, "unsupported": 400, "invalid_config": 400, "not_ready": 503}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 403, 404, 422, 500, 503)
}
# The pages are whole in themselves; nothing of them may come from, or go to, another host.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
Name = Annotated[str, Path(description="name of the model", max_length=128)]


def make_app(management: Management, token: str, names: tuple[str, ...]) -> FastAPI:
    """Return the application. `names` are the Host names under which it may be called."""
    app = FastAPI(
        title="Hyperion management API",
        version=__version__,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses=_PROBLEMS,
    )
    app.add_middleware(Guard, token=token, names=names)
    app.add_exception_handler(HyperionError, _answer_problem)
    _add_reads(app, management)
    _add_commands(app, management)
    _add_open_routes(app, management)
    return app


async def _answer_problem(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HyperionError):
        raise error
    headers = {"retry-after": "1"} if error.retryable else None
    return JSONResponse({"error": error.message, "code": error.code}, _STATUSES.get(error.code, 500), headers)


def _add_reads(app: FastAPI, management: Management) -> None:
    def models() -> list[ModelView]:
        return view_models(management.snapshot(), management.config.public_url)

    @app.get("/api/v1/status", tags=["platform"])
    async def get_status() -> StatusView:
        """The platform at a glance."""
        children = management.children()
        return StatusView(
            version=__version__,
            ready=management.is_ready(),
            url=management.config.public_url,
            snapshot_version=management.snapshot().version,
            gateways=management.workers(),
            models=models(),
            replicas=view_replicas(children),
            processes=view_processes(children),
        )

    @app.get("/api/v1/models", tags=["models"])
    async def list_models() -> list[ModelView]:
        """Every model, served or not, with its versions, signatures and replicas."""
        return models()

    @app.get("/api/v1/models/{model}", tags=["models"])
    async def get_model(model: Name) -> ModelView:
        """One model."""
        for view in models():
            if view.name == model:
                return view
        raise UnknownModel(f'model "{model}" is not known here; GET /api/v1/models lists those that are')

    @app.get("/api/v1/replicas", tags=["models"])
    async def list_replicas() -> list[ReplicaView]:
        """Every runner process, and how it fares."""
        return view_replicas(management.children())

    @app.get("/api/v1/config", tags=["platform"])
    async def list_settings() -> list[SettingView]:
        """Every setting, its value, and where that came from."""
        return [SettingView(key=key, value=value, source=source) for key, value, source in management.config.settings]


def _add_commands(app: FastAPI, management: Management) -> None:
    @app.post("/api/v1/models/{model}/load", tags=["models"])
    async def load_model(model: Name) -> ModelView:
        """Load the model, or load it again from where it lies; answers when every gateway serves it.

        What served before goes on serving until the new one is ready, and for good where it cannot be loaded.
        """
        await management.load(model, {})
        views = view_models(management.snapshot(), management.config.public_url)
        return next(view for view in views if view.name == model)

    @app.post("/api/v1/models/{model}/unload", tags=["models"], status_code=204, response_class=Response)
    async def unload_model(model: Name) -> None:
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
