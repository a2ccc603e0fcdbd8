"""The management API as the commands see it: where it is, with which token, and its errors as ours.

Everything here works from another machine: `--url` and `--token` (or HYPERION_ADMIN_URL and HYPERION_TOKEN) are all
that it needs.
"""

import functools
import getpass
import http.client
import json
import os
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import click

from hyperion.cli.resolve import find_files, resolve
from hyperion.schema.errors import (
    Conflict,
    Forbidden,
    GateRefused,
    HyperionError,
    InvalidConfig,
    InvalidResource,
    ModelRefused,
    NotFound,
    Unauthenticated,
    UnknownModel,
    UpstreamFailed,
)

URL_VARIABLE, TOKEN_VARIABLE = "HYPERION_ADMIN_URL", "HYPERION_TOKEN"
_ERRORS: dict[str, type[HyperionError]] = {
    kind.code: kind
    for kind in (
        Conflict,
        Forbidden,
        GateRefused,
        InvalidResource,
        ModelRefused,
        NotFound,
        Unauthenticated,
        UnknownModel,
    )
}
_LOST_S = 60.0  # so long a stream may be gone (control restarts) before its reader gives up


class Admin:
    """The API at `url`. Its methods raise what the server says as `HyperionError`."""

    def __init__(self, url: str, token: str, timeout_s: float = 120.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidConfig(f"--url {url}: expected a URL that starts with http:// or https://")
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = {"authorization": f"Bearer {token}", "x-hyperion-actor": name_actor()}

    def get(self, *path: str, **query: Any) -> Any:
        """GET; returns the JSON."""
        return self._call("GET", path, query)

    def post(self, *path: str, body: Any = None, **query: Any) -> Any:
        """POST `body` as JSON; returns the JSON."""
        return self._call("POST", path, query, {} if body is None else body)

    def put(self, *path: str, body: Any = None, **query: Any) -> Any:
        """PUT `body` as JSON; returns the JSON."""
        return self._call("PUT", path, query, body)

    def delete(self, *path: str, **query: Any) -> Any:
        """DELETE; returns the JSON, or None."""
        return self._call("DELETE", path, query)

    def pages(self, *path: str, **query: Any) -> Iterator[Any]:
        """The items of all pages of a list."""
        after: Any = None
        while True:
            page = self.get(*path, limit=500, **query, **({} if after is None else {"after": after}))
            yield from page["items"]
            after = page["next"]
            if after is None:
                return

    def upload(self, sha256: str, stream: BinaryIO, size_bytes: int) -> None:
        """Send a blob as it is read."""
        headers = {"content-length": str(size_bytes), "content-type": "application/octet-stream"}
        self._open("PUT", ("blobs", f"sha256:{sha256}"), {}, stream, headers).close()

    def follow(self, *path: str, **query: Any) -> Iterator[tuple[str, Any]]:
        """Server-sent events until `end`, across restarts of the server."""
        seen = time.monotonic()
        while True:
            try:
                with self._open("GET", path, query, None, {}) as answer:
                    for kind, data in read_events(answer):
                        if kind == "error":
                            raise UpstreamFailed(data)
                        seen = time.monotonic()
                        yield kind, json.loads(data)
                        if kind == "end":
                            return
            except (OSError, http.client.HTTPException) as error:
                _give_up_after(seen, f"{self.url}: {error}")
            except UpstreamFailed as error:
                if not isinstance(error.__cause__, urllib.error.URLError):
                    raise
                _give_up_after(seen, error.message)
            time.sleep(0.5)

    def _call(self, method: str, path: tuple[str, ...], query: Mapping[str, Any], body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with self._open(method, path, query, data, {"content-type": "application/json"}) as answer:
            try:
                return json.loads(answer.read() or b"null")
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise UpstreamFailed(f"{self.url}: its answer cannot be read: {error}") from error

    def _open(
        self, method: str, path: tuple[str, ...], query: Mapping[str, Any], data: Any, headers: Mapping[str, str]
    ) -> Any:
        given = {name: _write(value) for name, value in query.items() if value not in (None, "", False)}
        url = "/".join((self.url, "api/v1", *(urllib.parse.quote(part, safe=":") for part in path)))
        url += f"?{urllib.parse.urlencode(given)}" if given else ""
        request = urllib.request.Request(url, data, {**self._headers, **headers}, method=method)  # noqa: S310
        try:
            return urllib.request.urlopen(request, timeout=self._timeout_s)  # noqa: S310  the scheme was checked
        except urllib.error.HTTPError as error:
            raise _read_problem(error.code, error.read(), self.url) from error
        except urllib.error.URLError as error:
            raise UpstreamFailed(
                f"{self.url}: cannot be reached ({error.reason}); is hyperion serve running there? See --url"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise UpstreamFailed(f"{self.url}: {error}") from error


def add_connection(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--url`, `--token` and `--home`, and the `Admin` that they mean as its first argument."""

    @functools.wraps(function)
    def run(*args: Any, url: str | None, token: str | None, home: str | None, **rest: Any) -> Any:
        return function(connect(url, token, home), *args, **rest)

    options = (
        click.option("--url", help=f"of the management API  [default: ${URL_VARIABLE}, or the configuration's]"),
        click.option("--token", help=f"[default: ${TOKEN_VARIABLE}, or HOME/admin-token]"),
        click.option("--home", help="the home whose admin-token is used"),
    )
    wrapped: Callable[..., Any] = run
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def connect(url: str | None, token: str | None, home: str | None) -> Admin:
    """Return the API: what is given, else what the environment says, else what `hyperion serve` here would use."""
    settings = resolve({"home": home}, os.environ, find_files(os.environ, Path.cwd()))
    if not url:
        host = settings.text("admin_host")
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104  where to call, not to listen
        url = os.environ.get(URL_VARIABLE) or f"http://{host}:{settings.integer('admin_port')}"
    token = token or os.environ.get(TOKEN_VARIABLE)
    if not token:
        from hyperion.api.token import read_token

        path = Path(settings.text("home")) / "admin-token"
        if not path.exists():
            raise InvalidConfig(
                f"no token: {path} is not there; give --token (or ${TOKEN_VARIABLE}), or --home of the platform"
            )
        token = read_token(path)
    return Admin(url, token)


def name_actor() -> str:
    """Who types, for the ledger: `ada@laptop`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user in this container
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}".encode("ascii", "replace").decode()


def read_events(lines: Any) -> Iterator[tuple[str, str]]:
    """The (event, data) of a stream of server-sent events, given as lines of bytes."""
    data: list[str] = []
    kind = "message"
    for raw in lines:
        line = raw.decode("utf-8").rstrip("\r\n")
        if not line:
            if data:
                yield kind, "\n".join(data)
            kind, data = "message", []
        elif line.startswith("event:"):
            kind = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))


def _give_up_after(seen: float, message: str) -> None:
    if time.monotonic() - seen > _LOST_S:
        raise UpstreamFailed(message)


def _write(value: Any) -> str:
    return "true" if value is True else str(value)


def _read_problem(status: int, raw: bytes, url: str) -> HyperionError:
    try:
        problem = json.loads(raw)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "error" not in problem:
        return UpstreamFailed(f"{url}: {status}: {raw[:200].decode('utf-8', 'replace')}; is this a management API?")
    return _ERRORS.get(str(problem.get("code")), UpstreamFailed)(str(problem["error"]))
