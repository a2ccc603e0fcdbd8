"""`hyperion bench URL`: open-loop load on an endpoint, from the intended send time."""

import json
import ssl
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec

from hyperion.cli import load_plan, loadgen
from hyperion.cli.client import call
from hyperion.cli.credentials import add_key
from hyperion.cli.sample import make_request
from hyperion.cli.show import print_json, print_table
from hyperion.schema.errors import InvalidConfig, UpstreamFailed
from hyperion.schema.model import Signature, TensorSpec


@click.command("bench", short_help="Load an endpoint, open loop.")
@click.argument("url")
@click.option("--rate", type=click.FloatRange(min=0.1), default=100.0, show_default=True, help="requests per second")
@click.option("--seconds", type=click.FloatRange(min=0.5), default=10.0, show_default=True, help="how long")
@click.option("--warm-up", type=click.FloatRange(min=0.0), default=1.0, show_default=True, help="seconds left out")
@click.option("--poisson/--steady", default=True, show_default=True, help="how requests are spread")
@click.option("--connections", type=click.IntRange(1), default=1024, show_default=True, help="at most")
@click.option("--timeout-s", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="then it is a drop")
@click.option("--file", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="request (JSON)")
@add_key
@click.option("--insecure", is_flag=True, help="accept any TLS certificate")
@click.option("--json", "as_json", is_flag=True, help="for scripts")
def command(
    url: str,
    rate: float,
    seconds: float,
    warm_up: float,
    poisson: bool,
    connections: int,
    timeout_s: float,
    path: Path | None,
    key: str,
    insecure: bool,
    as_json: bool,
) -> int:
    """Send requests at a fixed rate to URL, which is a model (http://host:port/v2/models/NAME, optionally with /infer).
    Without --file the request is made from the model's signature.

    Latency counts from the moment a request was meant to be sent. Exit code 1 if fewer than 99 % of the requests left
    on time, because the figures then mean nothing, or if none succeeded.
    """
    model = url.rstrip("/").removesuffix("/infer")
    body = path.read_bytes() if path else json.dumps(make_request(read_signature(call(model, token=key)))).encode()
    parts = urlsplit(f"{model}/infer")
    tls = make_tls(insecure) if parts.scheme == "https" else None
    port = parts.port or (443 if tls else 80)
    loadgen.tune_socket_limit()
    report = loadgen.run(
        load_plan.Plan(
            host=parts.hostname or "",
            port=port,
            requests=[make_http_request(parts.netloc, parts.path, body, key)],
            rate=rate,
            seconds=seconds,
            warm_up_s=warm_up,
            connections=connections,
            timeout_s=timeout_s,
            steady=not poisson,
            tls=tls,
        )
    )
    if as_json:
        print_json(msgspec.to_builtins(report.as_dict(), str_keys=True))
    else:
        print_report(report)
    if not report.held:
        sys.stderr.write(
            f"hyperion: only {report.sent_rate:.1f} of {report.offered_rate:.1f} requests/s left on time: "
            "this client or its connections are too slow for the rate; lower --rate or raise --connections\n"
        )
    return 0 if report.held and report.good else 1


def make_http_request(host: str, target: str, body: bytes, key: str = "") -> bytes:
    """Return one whole HTTP/1.1 request, which shows the key if there is one. Raises `InvalidConfig` for what cannot
    stand in a request line."""
    if not (host + target).isascii() or any(character.isspace() for character in host + target):
        raise InvalidConfig(f"{host}{target}: expected a URL without spaces or control characters")
    head = f"POST {target} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    if key:
        head += f"authorization: Bearer {key}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def make_tls(insecure: bool) -> ssl.SSLContext:
    """Return a client's TLS settings."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def read_signature(metadata: Any) -> Signature:
    """Return the signature in a model's V2 metadata. Raises `UpstreamFailed` where it is none."""
    try:
        inputs, outputs = (msgspec.convert(metadata[key], tuple[TensorSpec, ...]) for key in ("inputs", "outputs"))
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise UpstreamFailed(f"this URL is no model of the V2 protocol ({error})") from error
    return Signature(inputs, outputs)


def print_report(report: load_plan.Report) -> None:
    """Print the figures for a person."""
    rows = [
        ("offered", f"{report.offered_rate:.1f} requests/s"),
        ("left on time", f"{report.sent_rate:.1f} requests/s{'' if report.held else '  (under 99 %: not held)'}"),
        ("succeeded", f"{report.good_rate:.1f} requests/s, {report.good} of {report.requests}"),
        ("statuses", ", ".join(f"{status}: {count}" for status, count in report.statuses.items()) or "none"),
        ("no answer", str(report.dropped)),
        *((f"latency {name}", f"{value:.2f} ms") for name, value in report.latency_ms.items()),
        *((f"refusal {name}", f"{value:.2f} ms") for name, value in report.refusal_ms.items()),
        ("connections", str(report.connections)),
    ]
    print_table(("", "open loop, from the intended send time"), rows)
