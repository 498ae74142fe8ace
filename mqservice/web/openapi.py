"""The API's description, OpenAPI 3.1, made of the route table and the types of bodies and answers."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any, Final

import msgspec
from aiohttp import web

from mqservice.message import JSON
from mqservice.web.cookie import COOKIE
from mqservice.web.parameters import CHANNEL_PATTERN, NAME_PATTERN, Duration, Moment
from mqservice.web.problems import PROBLEMS, Problem
from mqservice.web.route import Answer, Events, Header, Route
from mqservice.web.sse import MEDIA_TYPE

DOCUMENT: web.AppKey[bytes] = web.AppKey("openapi", bytes)

_REF: Final = "#/components/schemas/{name}"
_INFO: Final = (
    "A message queue over Redis or Valkey that any HTTP client can use. The request body is the message. An answer of "
    "202 or 200 to a send is a promise: Redis has the message; after a problem of status 4xx nothing was kept. Every "
    "answer has an X-Request-Id: the client's, if it sent a sane one. A query parameter that is not listed is refused."
)
_ANSWER_HEADERS: Final = {
    "Location": {"description": "Where it is.", "schema": {"type": "string", "format": "uri-reference"}},
    "WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds until to ask again.", "schema": {"type": "integer", "minimum": 1}},
}
_SCHEMES: Final = {
    "token": {"type": "http", "scheme": "bearer", "description": "The secret of a token."},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "From `POST /v1/session`."},
}
_PROBLEM_HEADERS: Final = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}


_NO_SESSION: Final = ("session.create", "session")
"""A session opens no other."""


async def openapi(request: web.Request) -> web.Response:
    """Describe the API: this OpenAPI 3.1 document."""
    return web.Response(body=request.app[DOCUMENT], content_type="application/json")


def document(routes: Sequence[Route], needs_token: bool = False) -> dict[str, Any]:
    """Return the OpenAPI document of a table of routes. `needs_token`: there are tokens, so one must be shown."""
    schemas = _Schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = paths.setdefault(route.plain_path, {})[route.method.lower()] = _operation(route, schemas)
        if needs_token:
            operation["security"] = _security(route)
    components: dict[str, Any] = {"schemas": schemas.components}
    if needs_token:
        components["securitySchemes"] = _SCHEMES
    return {
        "openapi": "3.1.0",
        "info": {"title": "mqservice", "version": version("mqservice"), "description": _INFO},
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": components,
    }


def encoded(routes: Sequence[Route], needs_token: bool = False) -> bytes:
    """Return the document as it is served."""
    return msgspec.json.format(JSON.encode(document(routes, needs_token)), indent=1)


class _Schemas:
    """The schemas of all types that the routes name, made together so that they share their components."""

    def __init__(self, routes: Iterable[Route]) -> None:
        types = [Problem, *(kind for route in routes for kind in _types(route))]
        schemas, self.components = msgspec.json.schema_components(types, schema_hook=_schema_hook, ref_template=_REF)
        self._of = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}

    def of(self, kind: Any) -> Any:
        """Return the schema of a type; a schema is its own."""
        return kind if isinstance(kind, dict) else self._of[id(kind)]

    def fields(self, struct: type[msgspec.Struct]) -> Iterable[tuple[str, Any, bool]]:
        """Yield name, schema, and whether it is required, of each field."""
        (schema,), components = msgspec.json.schema_components([struct], schema_hook=_schema_hook, ref_template=_REF)
        its = components[schema["$ref"].rpartition("/")[2]]
        for name, field in its["properties"].items():
            yield name, field, name in its.get("required", ())


def _types(route: Route) -> Iterable[Any]:
    kinds = [answer.content for answer in route.answers.values()]
    if route.body is not None:
        kinds += route.body.content.values()
    kinds += [data for kind in kinds if isinstance(kind, Events) for data in kind.kinds.values()]
    return [kind for kind in kinds if kind is not None and not isinstance(kind, (str, dict, Events))]


def _schema_hook(kind: type) -> dict[str, Any]:
    if kind in (Duration, Moment):
        return dict(kind.SCHEMA)
    raise NotImplementedError(kind)


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "tags": [route.tag],
        "summary": route.summary,
        "responses": _responses(route, schemas),
        "x-access": route.access,
    }
    if route.description:
        operation["description"] = route.description
    if parameters := _parameters(route, schemas):
        operation["parameters"] = parameters
    if route.body is not None:
        content = {media: {"schema": schemas.of(kind)} for media, kind in route.body.content.items()}
        operation["requestBody"] = {"required": True, "description": route.body.description, "content": content}
    return operation


def _security(route: Route) -> list[dict[str, list[str]]]:
    """Return the ways in; none for what is open. The names of scopes are for people, after OpenAPI 3.1."""
    if not route.needs_token:
        return []
    scopes: list[str] = [] if route.access == "token" else [route.access]
    return [{name: scopes} for name in _SCHEMES if (route.operation, name) != _NO_SESSION]


def _parameters(route: Route, schemas: _Schemas) -> list[dict[str, Any]]:
    parameters = [_path_parameter(name) for name in route.names]
    for name, schema, required in schemas.fields(route.query) if route.query else ():
        described = {key: value for key, value in schema.items() if key != "description"}
        parameter = {"name": name, "in": "query", "required": required, "schema": described}
        if text := schema.get("description"):
            parameter["description"] = text
        parameters.append(parameter)
    return parameters + [_header_parameter(header) for header in route.headers]


def _path_parameter(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "pattern": NAME_PATTERN}
    if name == "pattern":
        schema["pattern"] = CHANNEL_PATTERN
    if name == "code":
        schema = {"type": "string", "enum": list(PROBLEMS)}
    if name == "file":
        schema = {"type": "string", "pattern": "^[A-Za-z0-9./-]+$"}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _header_parameter(header: Header) -> dict[str, Any]:
    return {"name": header.name, "in": "header", "description": header.description, "schema": dict(header.schema)}


def _responses(route: Route, schemas: _Schemas) -> dict[str, Any]:
    responses = {str(status): _response(answer, schemas) for status, answer in route.answers.items()}
    by_status: dict[int, list[str]] = {}
    for code in route.codes:
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    for status, codes in by_status.items():
        responses[str(status)] = _problem_response(status, codes)
    return dict(sorted(responses.items()))


def _response(answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.description}
    if answer.headers:
        response["headers"] = _headers(answer.headers)
    if isinstance(answer.content, str):
        response["content"] = {answer.content: {"schema": {"type": "string"}}}
    elif isinstance(answer.content, Events):
        response["content"] = {MEDIA_TYPE: {"schema": _event(answer.content, schemas)}}
    elif answer.content is not None:
        response["content"] = {"application/json": {"schema": schemas.of(answer.content)}}
    return response


def _event(events: Events, schemas: _Schemas) -> dict[str, Any]:
    """Return the schema of each event of a stream, as OpenAPI before 3.2 has it."""
    return {
        "type": "object",
        "required": ["event", "data"],
        "oneOf": [
            {
                "properties": {
                    "event": {"const": name},
                    "data": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "contentSchema": schemas.of(kind),
                    },
                    "id": {"type": "string"},
                }
            }
            for name, kind in events.kinds.items()
        ],
    }


def _problem_response(status: int, codes: Sequence[str]) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in codes),
        "content": {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}},
    }
    if headers := _PROBLEM_HEADERS.get(status):
        response["headers"] = _headers(headers)
    return response


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"required": True, **_ANSWER_HEADERS[name]} for name in names}
