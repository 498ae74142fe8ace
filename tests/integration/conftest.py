"""A service that the tests of one file share."""

from collections.abc import Iterator

import pytest
import redis

from mqservice.embedded import EmbeddedServer
from tests.processes import Served, serving


@pytest.fixture
def other_url(server: EmbeddedServer) -> str:
    """The URL of an empty database that is not the one of `served`."""
    url = server.url(6)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture(scope="module")
def served(server: EmbeddedServer) -> Iterator[Served]:
    """A running service with the queues prodcons, echo, sleep and emails."""
    url = server.url(5)
    with redis.Redis.from_url(url) as client:
        client.flushall()
    with serving(url, "--app", "tests.cli_app:service") as running:
        yield running.started()
