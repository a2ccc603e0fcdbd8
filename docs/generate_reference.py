"""Write the reference pages (errors, metrics, settings, resources, API) from the code: `make docs`. A test keeps them
current.

A page is a function of the code's own tables, so that a page can not say what the code does not do.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, its neighbours are found as `docs`

from docs.reference_resources import KINDS, resource_sections, resources_text, routes
from hyperion.cli.group import cli as command
from hyperion.cli.settings import SETTINGS
from hyperion.gateway.grpc.status import CODES as GRPC_CODES
from hyperion.gateway.http.status import STATUS as HTTP_STATUS
from hyperion.schema import errors
from hyperion.telemetry.metrics import FAMILIES

GENERATED = "<!-- Written by docs/generate_reference.py (make docs); do not edit. -->\n"
IN_TABLES = {"help", *(setting.key for setting in SETTINGS)}
GROUPS = {
    "serve": "The platform",
    "model": "Models: these win over what lies beside a model",
    "gateway": "Limits, timeouts, TLS",
}


def errors_page() -> str:
    """Every error a caller or an operator can meet, with its statuses."""
    rows = [
        (
            f"`{kind.code}`",
            str(HTTP_STATUS[kind.code]),
            GRPC_CODES[kind.code],
            kind.blame,
            "yes" if kind.retryable else "no",
            first_paragraph(kind),
        )
        for kind in error_classes()
    ]
    return (
        f"# Errors\n\n{GENERATED}\n"
        'An error is `{"error": "…"}` over HTTP, and a status with a message over gRPC. The message says what was '
        "wrong, where, what was expected, and what to do. A retry of the same request can help where the table says "
        "so; wait for `retry-after` if there is one.\n\n"
        + table(("code", "HTTP", "gRPC", "whose fault", "retry", "meaning"), rows)
    )


def error_classes() -> list[type[errors.HyperionError]]:
    """The concrete classes in the order of the file."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.HyperionError)]
    kinds.remove(errors.HyperionError)
    return sorted(kinds, key=lambda kind: inspect.getsourcelines(kind)[1])


def metrics_page() -> str:
    """Every metric family with its type and labels."""
    rows = [
        (f"`{name}`", family.kind, ", ".join(f"`{label}`" for label in family.labels) or "–", family.help)
        for name, family in FAMILIES.items()
    ]
    return (
        f"# Metrics\n\n{GENERATED}\n"
        "`GET /metrics` on the inference port and on the management port: Prometheus text, complete whatever the "
        "number of gateway workers. Labels are bounded when they are written; names beyond the bound collapse to "
        "`other`.\n\n" + table(("name", "type", "labels", "meaning"), rows)
    )


def configuration_page() -> str:
    """Every setting of `serve`, and every other command with its options."""
    parts = [
        f"# Settings and commands\n\n{GENERATED}\n"
        "A flag (`--gateway-workers 2`) wins over the environment (`HYPERION_GATEWAY_WORKERS=2`), that over "
        "`hyperion.toml` in the working directory (`gateway-workers = 2`), that over `hyperion/config.toml` in "
        "`$XDG_CONFIG_HOME`, that over the default. `hyperion config show` prints every value and where it came from. "
        "An unknown key is an error that names the nearest one.\n",
        "## Settings of `hyperion serve`\n",
        *(f"### {title}\n\n{settings_table(group)}" for group, title in GROUPS.items()),
        "## Commands\n",
        "Exit codes: 0 done, 1 the operation failed, 2 wrong usage, 3 refused by a policy or a gate. An error is one "
        "line on standard error: what, where, what to do. Commands that call the management API find it by `--url` or "
        "`HYPERION_ADMIN_URL`, else where the settings say, and its token by `--token` or `HYPERION_TOKEN`, else in "
        "`HOME/admin-token`; those that call a model take `HYPERION_API_KEY`. Colours are for terminals, without "
        "`NO_COLOR`.\n",
        *(command_section(path, one) for path, one in commands(command, ("hyperion",))),
    ]
    return "\n".join(parts)


def settings_table(group: str) -> str:
    rows = [
        (
            f"`--{one.name}`" + (f" / `--{one.off_name}`" if one.off_name else ""),
            f"`{one.variable}`",
            f"`{str(one.default).lower() if one.kind == 'flag' else one.default}`" if one.default != "" else "–",
            one.help,
        )
        for one in SETTINGS
        if one.group == group
    ]
    return table(("flag", "environment", "default", ""), rows)


def commands(one: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The leaves of the tree of commands, in the order of `--help`."""
    if not isinstance(one, click.Group):
        yield path, one
        return
    with click.Context(one) as context:
        for name in one.list_commands(context):
            child = one.get_command(context, name)
            if child is not None and not child.hidden:
                yield from commands(child, (*path, name))


def command_section(path: tuple[str, ...], one: click.Command) -> str:
    """One command: what it does, its arguments and its options."""
    context = click.Context(one, info_name=" ".join(path))
    usage = " ".join((*path, *one.collect_usage_pieces(context)))
    rows = []
    for option in one.params:
        if isinstance(option, click.Option) and not option.hidden and option.name not in IN_TABLES:
            names = " / ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
            rows.append((names, default_of(option), option.help or ""))
    text = inspect.cleandoc(one.help or one.short_help or "").replace("\b\n", "").replace("\f", "")
    body = f"### `{' '.join(path)}`\n\n{text}\n\n```\n{usage}\n```\n"
    return body + ("\n" + table(("option", "default", ""), rows) if rows else "")


def default_of(option: click.Option) -> str:
    if option.default is None or callable(option.default) or repr(option.default).startswith("Sentinel"):
        return ""
    if option.is_flag:
        return "" if not option.secondary_opts else f"`{(option.opts if option.default else option.secondary_opts)[0]}`"
    return f"`{option.default}`" if option.default != () else ""


def resources_page() -> str:
    """Every field of every kind of resource."""
    parts = [f"# Resources\n\n{GENERATED}\n{resources_text()}"]
    for kind in KINDS:
        for path, rows in resource_sections(kind):
            title = f"{kind}: {path}" if path and kind != "Endpoint" else path or kind
            parts.append(f"## {title}\n\n" + table(("field", "type", "default", ""), rows))
    return "\n".join(parts)


def management_page() -> str:
    """Every route of the management API."""
    parts = [
        f"# Management API\n\n{GENERATED}\n"
        "JSON over HTTP on `--admin-port` (8082), and all that the commands use. `/api/v1/openapi.json` describes it "
        "to programs, `/api/docs` to people. Every request but that for the description needs "
        "`authorization: Bearer TOKEN`: the home's `admin-token`, or [a key](security.md#who-may-do-what). Writes say "
        "who acts in `x-hyperion-actor`, which the ledger keeps behind the key's own name.\n\n"
        "Errors are `application/problem+json` with `status`, `detail` and the [code](errors.md). Lists take `after` "
        "and `limit` and answer `items` and `next`. `/healthz`, `/livez`, `/readyz` and `/metrics` need no token.\n"
    ]
    for tag, rows in routes():
        parts.append(f"## {tag}\n\n" + table(("route", ""), rows))
    return "\n".join(parts)


def first_paragraph(kind: type) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].split())


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


PAGES: dict[str, Callable[[], str]] = {
    "configuration.md": configuration_page,
    "errors.md": errors_page,
    "management-api.md": management_page,
    "metrics.md": metrics_page,
    "resources.md": resources_page,
}


def write_pages(folder: Path) -> None:
    for name, page in PAGES.items():
        (folder / name).write_text(page())


if __name__ == "__main__":
    write_pages(Path(__file__).parent)
