"""The two pages of the management port: the platform's status, and the description of its API. Whole in themselves: no
script, style or picture comes from anywhere else."""

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any


def write_status_page() -> str:
    """Return the status page. It holds no data: its script asks the API, with the token that the reader gives it."""
    return files("hyperion.api").joinpath("status.html").read_text("utf-8")


def write_docs_page(document: Mapping[str, Any]) -> str:
    """Return a page that shows an OpenAPI document: each operation, and each record that it answers."""
    operations = "".join(
        _write_operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    records = "".join(
        _write_record(name, schema) for name, schema in document.get("components", {}).get("schemas", {}).items()
    )
    page = files("hyperion.api").joinpath("docs.html").read_text("utf-8")
    return page.replace("{title}", escape(document["info"]["title"])).replace("{body}", operations + records)


def _write_operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    answers = ", ".join(
        f"<b>{escape(status)}</b> {_name_answer(answer)}" for status, answer in operation["responses"].items()
    )
    about = escape(operation.get("description", operation.get("summary", "")))
    return (
        f"<section><h2><code><em>{escape(method.upper())}</em> {escape(path)}</code></h2>"
        f"<p>{about}</p><p class=dim>{answers}</p></section>"
    )


def _name_answer(answer: Mapping[str, Any]) -> str:
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return _name_type(schema)


def _name_type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(str(schema["$ref"]).rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if schema.get("type") == "array":
        return f"list of {_name_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "")))


def _write_record(name: str, schema: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code><td>{_name_type(about)}<td>{escape(about.get('description', ''))}"
        for field, about in schema.get("properties", {}).items()
    )
    about = escape(schema.get("description", ""))
    return f'<section id="{escape(name)}"><h2>{escape(name)}</h2><p>{about}</p><table>{rows}</table></section>'
