"""What people read of the API: every route with its parameters, answers and a curl line; every kind of problem.

Made from the API's description and from the table of problems, when first asked for.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web

from mqservice.web.html import page, text
from mqservice.web.openapi import DOCUMENT
from mqservice.web.parameters import Duration
from mqservice.web.problems import PROBLEMS, Kind, Refusal

CURL: web.AppKey[dict[str, str]] = web.AppKey("curl", dict)
"""Operation → the curl line that tries it."""


_ACCESS: Final = {
    "probe": "Open to everybody, by any host name.",
    "open": "Open to everybody.",
    "token": "Where there are tokens, it needs any of them.",
}
_SCOPED: Final = "Where there are tokens, it needs one with the scope `{}`."


async def index(request: web.Request) -> web.Response:
    """Document the API: every route with its parameters, its answers and a curl line."""
    document = msgspec.json.decode(request.app[DOCUMENT])
    operations = [
        (operation["tags"][0], _operation(method, path, operation, request.app[CURL][operation["operationId"]]))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    tags = [tag["name"] for tag in document["tags"]]
    sections = "".join(_section(tag, operations) for tag in tags)
    return page("HTTP API", _intro(document, tags) + sections + _types(document["components"]["schemas"]))


async def problems(_request: web.Request) -> web.Response:
    """List every kind of problem."""
    rows = "".join(
        f'<tr><td>{kind.status}<td><a href="/problems/{code}">{code}</a><td>{text(kind.title)}'
        for code, kind in PROBLEMS.items()
    )
    return page("Problems", f"<article><table><tr><th>status<th>type<th>title{rows}</table></article>")


async def problem(request: web.Request) -> web.Response:
    """Explain one kind of problem: what it means and what to do."""
    code = request.match_info["code"]
    kind = PROBLEMS.get(code)
    if kind is None:
        raise Refusal("not-found", f"no problem is called {code[:60]!r}; /problems lists all")
    return page(kind.title, _problem(code, kind))


def _intro(document: Mapping[str, Any], tags: list[str]) -> str:
    links = " · ".join(map(_link, [*tags, "types"]))
    return (
        f"<p>{text(document['info']['description'])}</p>"
        f'<nav>{links} · <a href="/problems">problems</a> · <a href="/openapi.json">openapi.json</a></nav>'
    )


def _section(tag: str, operations: list[tuple[str, str]]) -> str:
    articles = "".join(html for its_tag, html in operations if its_tag == tag)
    return f'<section id="{tag}"><h2>{tag}</h2>{articles}</section>'


def _operation(method: str, path: str, operation: Mapping[str, Any], curl: str) -> str:
    return (
        f'<article id="{operation["operationId"]}"><h3><b>{method.upper()}</b> <code>{text(path)}</code></h3>'
        f"<p>{text(operation['summary'])}</p>"
        + "".join(f"<p>{text(part)}</p>" for part in operation.get("description", "").split("\n\n") if part)
        + f"<p>{text(_ACCESS.get(operation['x-access'], _SCOPED).format(operation['x-access']))}</p>"
        + f"<pre><code>{text(curl)}</code></pre>"
        + _parameters(operation)
        + _answers(operation["responses"])
        + "</article>"
    )


def _parameters(operation: Mapping[str, Any]) -> str:
    rows = "".join(_parameter(parameter) for parameter in operation.get("parameters", ()))
    if body := operation.get("requestBody"):
        rows += f"<tr><td>body<td>{text(', '.join(body['content']))}<td>{text(body['description'])}"
    return f"<table><tr><th>parameter<th>value<th>meaning{rows}</table>" if rows else ""


def _parameter(parameter: Mapping[str, Any]) -> str:
    where = "" if parameter["in"] == "query" else f" <small>{parameter['in']}</small>"
    required = " <small>required</small>" if parameter.get("required") else ""
    name = f"<code>{text(parameter['name'])}</code>{where}{required}"
    return f"<tr><td>{name}<td>{text(_values(parameter['schema']))}<td>{text(parameter.get('description', ''))}"


def _values(schema: Mapping[str, Any]) -> str:
    """Return in a few words what a schema allows."""
    if "$ref" in schema:
        return _type(schema)
    if "enum" in schema:
        return _or_default(" | ".join(map(str, schema["enum"])), schema)
    if "anyOf" in schema:
        if schema["anyOf"] == Duration.SCHEMA["anyOf"]:
            return "5, 0.5, 500ms, 10s, 5m, 2h"
        return _or_default(" or ".join(_values(one) for one in schema["anyOf"]), schema)
    words = str(schema.get("format", schema.get("type", "any")))
    if "items" in schema:
        words += f" of {_values(schema['items'])}"
    if "minimum" in schema:
        words += f" {schema['minimum']}–{schema.get('maximum', '')}"
    return _or_default(words, schema)


def _or_default(words: str, schema: Mapping[str, Any]) -> str:
    return f"{words}; else {schema['default']}" if schema.get("default") not in (None, "", [], {}) else words


def _answers(responses: Mapping[str, Any]) -> str:
    rows = "".join(_answer(int(status), response) for status, response in responses.items())
    return f"<table><tr><th>status<th>answer<th>content{rows}</table>"


def _answer(status: int, response: Mapping[str, Any]) -> str:
    codes = [code for code, kind in PROBLEMS.items() if kind.status == status]
    said = text(response["description"])
    for code in codes:
        said = said.replace(f"<code>{code}</code>", f'<a href="/problems/{code}">{code}</a>')
    content = ", ".join(
        f"{media} {_type(body['schema'])}".strip() for media, body in response.get("content", {}).items()
    )
    return f"<tr><td>{status} <small>{HTTPStatus(status).phrase}</small><td>{said}<td>{text(content)}"


def _type(schema: Mapping[str, Any]) -> str:
    if "oneOf" in schema:
        return ", ".join(_event(kind["properties"]) for kind in schema["oneOf"])
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _event(properties: Mapping[str, Any]) -> str:
    """Return what one event of a stream is called and holds."""
    return f"{properties['event']['const']}: {_type(properties['data']['contentSchema'])}"


def _link(name: str) -> str:
    return f'<a href="#{name}">{name}</a>' if name else ""


def _types(schemas: Mapping[str, Any]) -> str:
    articles = "".join(_article(name, schema) for name, schema in schemas.items())
    return f'<section id="types"><h2>types</h2>{articles}</section>'


def _article(name: str, schema: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{text(field)}</code>{'' if field in schema.get('required', ()) else ' <small>optional</small>'}"
        f"<td>{text(_values(its))}<td>{text(its.get('description', ''))}"
        for field, its in schema["properties"].items()
    )
    described = text(schema.get("description", ""))
    return f'<article id="{name}"><h3><code>{name}</code></h3><p>{described}</p><table>{rows}</table></article>'


def _problem(code: str, kind: Kind) -> str:
    return (
        f"<article><p><code>/problems/{code}</code>, status {kind.status} {HTTPStatus(kind.status).phrase}</p>"
        f"<h2>What it means</h2><p>{text(kind.meaning)}</p><h2>What to do</h2><p>{text(kind.remedy)}</p>"
        '<nav><a href="/problems">all problems</a> · <a href="/docs">the API</a></nav></article>'
    )
