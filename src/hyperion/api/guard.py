"""Who may ask: the token on `/api/v1`, and the Host and Origin checks that keep other web sites out."""

import hmac
import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_OPEN_PATHS = frozenset(("/healthz", "/livez", "/readyz", "/metrics"))
_GUARDED = "/api/v1/"
# The document that describes the API holds nothing of this installation.
_PUBLIC = frozenset(("/api/v1/openapi.json",))


class Guard:
    """Refuses with 401 what has no token, and with 403 what a page of another site may have sent.

    A browser can be made to send requests here under a name that its attacker controls (DNS rebinding): so only names
    in `names` and IP addresses, which cannot be rebound, are accepted as Host, and an Origin must be this very host.
    """

    def __init__(self, app: ASGIApp, token: str, names: Iterable[str]) -> None:
        self._app = app
        self._token = token.encode()
        self._names = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            refusal = self._refuse(scope["path"], Headers(scope=scope))
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refuse(self, path: str, headers: Headers) -> JSONResponse | None:
        if path in _OPEN_PATHS:
            return None
        host = headers.get("host", "")
        if not is_allowed_host(host, self._names):
            return _problem(
                403, "forbidden", "this Host name is not ours; call it by its address, or see --admin-names"
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return _problem(403, "forbidden", "a page of another site may not call this API")
        if not path.startswith(_GUARDED) or path in _PUBLIC:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token):
            return None
        message = "a token is needed: authorization: Bearer TOKEN, from the file admin-token in the home directory"
        return _problem(401, "unauthenticated", message, {"www-authenticate": "Bearer"})


def is_allowed_host(host: str, names: set[str]) -> bool:
    """Say whether a Host header is one of `names`, or an IP address, with or without a port.

    >>> is_allowed_host("LOCALHOST:8082", {"localhost"}), is_allowed_host("[::1]:80", set())
    (True, True)
    >>> is_allowed_host("evil.example:8082", {"localhost"}), is_allowed_host("", {"localhost"})
    (False, False)
    """
    name = host.lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _problem(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message, "code": code}, status, headers)
