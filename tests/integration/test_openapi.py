"""The API's description: valid, complete, and true of what a real server answers to whatever it allows and forbids."""

import asyncio
import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis
import schemathesis
import uvloop
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from mqservice import Service
from mqservice.config import Config, HttpConfig, QueueConfig, RedisConfig, ServiceConfig
from mqservice.embedded import EmbeddedServer
from mqservice.tally import Tally
from mqservice.web import app, sse, waiting
from mqservice.web.openapi import document
from mqservice.web.problems import PROBLEMS
from mqservice.web.routes import ROUTES

DOCUMENT = json.loads(json.dumps(document(ROUTES)))
"""As it is served."""

ACCEPTED = ["2xx", "3xx", "401", "403", "404", "409"]
REFUSED = ["400", "404", "405", "409", "413", "415", "422"]
FURTHER_RULES = {
    "messages.send": ["400", "422"],  # `delay` or `at`, at most a year away; a key used for another request
    "messages.look": ["400"],  # a cursor of no page
    "batches.send": ["400", "422"],  # 5.0 attempts: an integer to JSON Schema
    "channels.publish": ["422"],
    "schedules.put": ["400"],  # either `cron` or `every`; what a cron expression is
}
"""Operation → how it refuses what its schema allows, by rules that no schema can say."""


def _operation(name: str, further: list[str]) -> dict[str, Any]:
    checks = {"positive_data_acceptance": {"expected-statuses": ACCEPTED + further}}
    return {"include-operation-id": name, "checks": checks}


SCHEMA = schemathesis.openapi.from_dict(
    DOCUMENT,
    config=SchemathesisConfig.from_dict(
        {
            "checks": {
                "positive_data_acceptance": {"expected-statuses": ACCEPTED},
                "negative_data_rejection": {"expected-statuses": REFUSED},
            },
            "operations": [_operation(name, further) for name, further in FURTHER_RULES.items()],
        }
    ),
)


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context: Any, value: Any) -> bytes:
    """An item a line; what is no array becomes a line that is no item."""
    items = value if isinstance(value, list) else [[value]]
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


class Background:
    """A service on a loop of its own, for a client that blocks."""

    def __init__(self, config: Config) -> None:
        self._service = Service(config)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def start(self) -> str:
        """Start it; return its URL."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._service.start(), self._loop).result(10)
        return self._service.url

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._service.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def base_url(server: EmbeddedServer) -> Iterator[str]:
    """The URL of a service whose waits are short, so that a wait for what nobody handles is too."""
    url = server.url(6)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "LONGEST_S", 0.02)
        patch.setattr(sse, "LONGEST_S", 0.02)
        background = Background(
            Config(
                redis=RedisConfig(url=url, embedded="never"),
                http=HttpConfig(port=0),
                service=ServiceConfig(drain_s=0),
                queue=QueueConfig(bell_s=0.5),
            )
        )
        yield background.start()
        background.stop()


OPERATIONS = {operation.label: operation for operation in (found.ok() for found in SCHEMA.get_all_operations())}
"""Parametrized here: pytest 9.2 gives all items of `SCHEMA.parametrize` one id, and xdist then runs one of them."""


def _asked() -> Iterator[tuple[str, GenerationMode]]:
    """Each operation with what it allows, and where it takes anything at all, with what it forbids."""
    for label, operation in OPERATIONS.items():
        yield label, GenerationMode.POSITIVE
        described = DOCUMENT["paths"][operation.path][operation.method.lower()]
        if described.get("parameters") or "requestBody" in described:
            yield label, GenerationMode.NEGATIVE


@pytest.mark.parametrize(("label", "mode"), tuple(_asked()))
def test_route_when_asked_anything_then_it_answers_as_described(
    label: str, mode: GenerationMode, base_url: str
) -> None:
    operation = OPERATIONS[label]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        case.call_and_validate(base_url=base_url)

    ask()


def test_operations_when_listed_then_there_is_one_for_each_route() -> None:
    assert len(OPERATIONS) == len(ROUTES)


def test_description_when_validated_then_it_is_openapi_3_1() -> None:
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_description_when_compared_with_the_router_then_each_has_the_others_routes() -> None:
    router = app.application(SimpleNamespace(tally=Tally()), HttpConfig()).router  # type: ignore[arg-type]  # nothing is called
    routed = {(route.method, route.resource.canonical) for route in router.routes() if route.resource}
    routed.remove(("*", "/{path}"))  # where nothing is
    described = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert routed == described


def test_description_when_it_names_problems_then_there_are_such() -> None:
    assert {code for route in ROUTES for code in route.codes} <= PROBLEMS.keys()
