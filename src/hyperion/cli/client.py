"""A small blocking HTTP client for the commands that call a running platform."""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from hyperion.schema.errors import InvalidConfig, UpstreamFailed


def call(url: str, body: Any = None, *, token: str = "", timeout_s: float = 60.0) -> Any:
    """GET, or POST `body` as JSON; return the JSON that comes back. Raises `UpstreamFailed` with the server's words,
    or `InvalidConfig` for a URL that is none."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    if not url.startswith(("http://", "https://")):
        raise InvalidConfig(f"{url}: expected a URL that starts with http:// or https://")
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - the scheme was checked
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        raise UpstreamFailed(f"{url}: {error.code}: {_read_error(error.read())}") from error
    except urllib.error.URLError as error:
        raise UpstreamFailed(f"{url}: cannot be reached ({error.reason}); is hyperion serve running there?") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UpstreamFailed(f"{url}: {error}") from error


def _read_error(raw: bytes) -> str:
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = None
    text = answer.get("error") if isinstance(answer, dict) else None
    return str(text or raw[:200].decode("utf-8", "replace"))
