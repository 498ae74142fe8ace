"""Fixtures: uvloop as in production, and a real server per test process, emptied before each test."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio
import uvloop

from mqservice.config import Config, HttpConfig, QueueConfig, RedisConfig
from mqservice.connections import Connections
from mqservice.embedded import EmbeddedServer
from tests.waiting import until, wait_for


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], object]]:
    """Run every asynchronous test on the loop that the service runs on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests that share an id: xdist would run only one of them, and say nothing."""
    shared = [nodeid for nodeid, count in Counter(item.nodeid for item in items).items() if count > 1]
    if shared:
        raise pytest.UsageError(f"several tests have the id {shared[0]}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once for each reason why tests were skipped, such as that there is no browser."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server of this test process's own."""
    directory: Path = tmp_path_factory.mktemp("server")
    server = asyncio.run(EmbeddedServer.join(directory))
    yield server
    server.leave()
    wait_for(lambda: server.server_pid() is None, 15)


@pytest.fixture
def url(server: EmbeddedServer) -> str:
    """The URL of an empty database."""
    url = server.url(5)
    with redis.Redis.from_url(url) as client:
        client.flushall()
        client.config_resetstat()
    return url


@pytest.fixture
async def redis_client(url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A plain client, as a stranger would use."""
    client = redis.asyncio.from_url(url)
    yield client
    await client.aclose()


@pytest.fixture
async def connections(url: str) -> AsyncIterator[Connections]:
    """Connections as the service has them."""
    connections = Connections(url)
    yield connections
    await connections.aclose()


@pytest.fixture
def config(url: str) -> Config:
    """A configuration for tests: any free port, a short lease, the test's own server."""
    return Config(
        redis=RedisConfig(url=url, embedded="never"),
        http=HttpConfig(port=0),
        queue=QueueConfig(lease_s=2.0, bell_s=0.5),
    )


@pytest.fixture(autouse=True)
async def no_task_left() -> AsyncIterator[None]:
    """Fail a test that leaves a task behind."""
    yield
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, 2)
