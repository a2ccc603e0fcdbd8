"""Who may ask: tokens on `/api/v1`, Host and Origin checks that keep other web sites out, and the size of bodies."""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hyperion.api.callers import ADMIN_NAME, Caller, make_caller
from hyperion.api.problems import answer_error, make_problem
from hyperion.schema.errors import HyperionError, TooLarge

_OPEN_PATHS = frozenset(("/healthz", "/livez", "/readyz", "/metrics"))
_GUARDED = "/api/v1/"
# The document that describes the API holds nothing of this installation.
_PUBLIC = frozenset(("/api/v1/openapi.json",))
# Blobs go to the disk as they come, and have a limit of their own.
_STREAMED = "/api/v1/blobs/"
MAX_BODY_BYTES = 4 << 20
ACTOR_HEADER = "x-hyperion-actor"
# The id and the scopes of the key with a secret, or None.
FindKey = Callable[[str], Awaitable[tuple[str, Iterable[str]] | None]]


class Guard:
    """Refuses with 401 what has no token, and with 403 what a page of another site may have sent.

    A browser can be made to send requests here under a name that its attacker controls (DNS rebinding): so only names
    in `names` and IP addresses, which cannot be rebound, are accepted as Host, and an Origin must be this very host.
    The home's own `token` may do everything; what another may do says `find_key`.
    """

    def __init__(self, app: ASGIApp, token: str, names: Iterable[str], find_key: FindKey) -> None:
        self._app = app
        self._token = token.encode()
        self._names = {name.lower() for name in names}
        self._find_key = find_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            path = scope["path"]
            refusal = self._refuse_site(path, headers)
            if refusal is None and path.startswith(_GUARDED) and path not in _PUBLIC:
                try:
                    caller = await self._identify(headers)
                except HyperionError as error:  # the store cannot be asked now
                    refusal = answer_error(error)
                else:
                    refusal = _ask_for_token("authorization" in headers) if caller is None else None
                    scope.setdefault("state", {})["caller"] = caller
            if path.startswith(_GUARDED) and path not in _PUBLIC:
                send = _keep_nowhere(send)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
            if not path.startswith(_STREAMED):
                receive = _limit(receive)
        await self._app(scope, receive, send)

    def _refuse_site(self, path: str, headers: Headers) -> JSONResponse | None:
        if path in _OPEN_PATHS:
            return None
        host = headers.get("host", "")
        if not is_allowed_host(host, self._names):
            return make_problem(
                403, "forbidden", "this Host name is not ours; call it by its address, or see --admin-names"
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return make_problem(403, "forbidden", "a page of another site may not call this API")
        return None

    async def _identify(self, headers: Headers) -> Caller | None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        secret = given.strip()
        if scheme.lower() != "bearer" or not secret:
            return None
        claim = headers.get(ACTOR_HEADER, "")
        if hmac.compare_digest(secret.encode(), self._token):
            return make_caller(ADMIN_NAME, ("admin",), claim)
        found = await self._find_key(secret)
        return None if found is None else make_caller(*found, claim)


def _keep_nowhere(send: Send) -> Send:
    """`send`, which tells browsers and proxies to keep no answer: there are secrets in some."""

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).setdefault("cache-control", "no-store")
        await send(message)

    return marked


def _limit(receive: Receive) -> Receive:
    """`receive`, which raises `TooLarge` for a body that is."""
    count = 0

    async def limited() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > MAX_BODY_BYTES:
            raise TooLarge(f"the body is larger than {MAX_BODY_BYTES >> 20} MiB")
        return message

    return limited


def _ask_for_token(shown: bool) -> JSONResponse:
    """The refusal; `shown` says that there was something, which does not count (RFC 6750, 3.1)."""
    message, asks = "a token is needed", "Bearer"
    if shown:
        message, asks = "this is no token or key that counts here (any more)", 'Bearer error="invalid_token"'
    message += ": send authorization: Bearer TOKEN, from the file admin-token in the home directory, or a key"
    return make_problem(401, "unauthenticated", message, {"www-authenticate": asks})


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
