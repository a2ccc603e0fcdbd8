"""Errors as RFC 9457 problem details, with the status of each code of ours in one table."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from hyperion.api.records import Problem
from hyperion.schema.errors import HyperionError

MEDIA_TYPE = "application/problem+json"
_STATUSES = {
    "conflict": 409,
    "fenced": 503,
    "forbidden": 403,
    "invalid_config": 400,
    "invalid_resource": 422,
    "malformed": 400,
    "missing_extra": 501,
    "model_refused": 422,
    "not_found": 404,
    "not_ready": 503,
    "overloaded": 503,
    "refused": 409,
    "storage_failed": 503,
    "too_large": 413,
    "unauthenticated": 401,
    "unknown_model": 404,
    "unsupported": 400,
}
# The codes of what the framework refuses before we see it.
_CODES = {404: "unknown_route", 405: "method_not_allowed", 400: "malformed", 422: "malformed", 413: "too_large"}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": HTTPStatus(status).phrase,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status in (400, 401, 403, 404, 409, 413, 422, 500, 503)
}


def add_problem_handlers(app: FastAPI) -> None:
    """Let every error of the application be answered as a problem."""
    app.add_exception_handler(HyperionError, _answer_ours)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)


def make_problem(
    status: int, code: str, message: str, headers: dict[str, str] | None = None, **more: Any
) -> JSONResponse:
    """Return the answer. `more` are members beside the standard ones."""
    problem = Problem(
        type=f"urn:hyperion:problem:{code.replace('_', '-')}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=message,
        code=code,
        error=message,
    )
    return JSONResponse({**problem.model_dump(), **more}, status, headers, MEDIA_TYPE)


def answer_error(error: HyperionError) -> JSONResponse:
    """Return the problem that an error of ours is."""
    headers = {"retry-after": "1"} if error.retryable else {}
    if error.code == "unauthenticated":
        headers["www-authenticate"] = "Bearer"
    return make_problem(_STATUSES.get(error.code, 500), error.code, error.message, headers)


async def _answer_ours(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HyperionError):
        raise error
    return answer_error(error)


async def _answer_validation(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return make_problem(422, "malformed", f"{where}: {first['msg']}")


async def _answer_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    if error.status_code == 405:  # the framework names the methods of the path's first route only
        headers["allow"] = ", ".join(_list_methods(request, headers.pop("Allow", "")))
        said = f"{request.method} is not allowed here, but {headers['allow']}; see /api/docs"
        return make_problem(405, _CODES[405], said, headers)
    code = _CODES.get(error.status_code, "internal")
    return make_problem(error.status_code, code, f"{error.detail}; see /api/docs", headers)


def _list_methods(request: Request, first: str) -> list[str]:
    """What may be asked of the request's path, by all routes that have it; `first` is what the framework says."""
    found = {method for method in first.split(", ") if method}
    for template, routes in request.app.openapi()["paths"].items():
        if compile_path(template)[0].match(request.url.path):
            found |= {method.upper() for method in routes}
    return sorted(found)
