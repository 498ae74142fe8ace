"""The test kit, as a user's tests use it."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mqservice import Message, MqError, Reject, Retry, Service
from mqservice.config import Config, QueueConfig, RedisConfig
from mqservice.testing import running
from tests.waiting import until_async

NOWHERE = "redis://127.0.0.1:1/0"


class Shop:
    """A user's service with a handler for each way a message may end."""

    def __init__(self) -> None:
        self.service = Service(Config(redis=RedisConfig(url=NOWHERE, embedded="never"), queue=QueueConfig(attempts=3)))
        self.started = asyncio.Event()
        self.send_email = self.service.handler("emails")(self.email)
        self.service.handler("orders", key="shop:orders")(self.order)
        self.service.handler("slow")(self.slow)

    async def email(self, to: str) -> str:
        if to == "blocked":
            raise Reject("blocked")
        if to == "broken":
            raise ValueError("no relay")
        return f"sent to {to}"

    async def order(self, number: int, message: Message) -> None:
        if message.attempt == 1:
            raise Retry(delay=3600)
        await self.service.send("emails", f"customer {number}")

    async def slow(self, _body: str) -> None:
        self.started.set()
        await asyncio.Event().wait()


async def test_drain_when_a_handler_asks_for_a_retry_between_two_looks_then_it_is_run_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = Service(Config(redis=RedisConfig(url=NOWHERE, embedded="never")))
    looked = asyncio.Event()

    @service.handler("late")
    async def late(_body: str, message: Message) -> str:
        if message.attempt == 1:
            await looked.wait()
            raise Retry(delay=3600)
        return "second"

    async with running(service) as kit:

        async def is_over() -> bool:
            return (await kit.outcomes())[0].state not in {"ready", "active"}

        async def then_the_handler_goes_on(look: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
            answer = await look(*args, **options)
            looked.set()
            await until_async(is_over)
            return answer

        for name in ("_left", "_hasten"):
            monkeypatch.setattr(kit, name, partial(then_the_handler_goes_on, getattr(kit, name)))
        await kit.send("late", "x")
        (outcome,) = await kit.drain(run_retries=True)
    assert (outcome.state, outcome.result) == ("done", "second")


async def test_drain_when_messages_end_in_each_way_then_the_outcomes_come_in_order_of_sending() -> None:
    shop = Shop()
    async with running(shop.service) as kit:
        await kit.send("emails", "ann", id="z")
        await kit.send(shop.send_email, "blocked", id="y")
        await kit.send("emails", "broken", id="x", attempts=1)
        await kit.send("nobody", "kept", id="w")
        outcomes = await kit.drain()
    assert [(o.queue, o.id, o.state) for o in outcomes] == [
        ("emails", "z", "done"),
        ("emails", "y", "dead"),
        ("emails", "x", "dead"),
        ("nobody", "w", "ready"),
    ]
    assert outcomes[0].result == "sent to ann"
    assert (outcomes[1].reason, outcomes[2].reason) == ("rejected", "failed")
    assert outcomes[2].error.text == "no relay"  # type: ignore[union-attr]


async def test_drain_when_retries_are_to_run_then_they_run_at_once_and_delayed_ones_stay() -> None:
    shop = Shop()
    async with running(shop.service) as kit:
        await kit.send("orders", 7)
        await kit.send("emails", "broken")
        await kit.send("emails", "later", delay=3600)
        assert [o.state for o in await kit.drain()] == ["scheduled", "scheduled", "scheduled"]
        outcomes = await kit.drain(run_retries=True)
        assert [(o.state, o.attempts_used) for o in outcomes] == [
            ("done", 1),
            ("dead", 3),
            ("scheduled", 0),
            ("done", 0),
        ]
        assert outcomes[3].result == "sent to customer 7"
        assert (await kit.drain(run_delayed=True))[2].state == "done"


async def test_drain_when_due_within_ahead_then_waited_for_and_what_is_due_later_is_not() -> None:
    shop = Shop()
    async with running(shop.service) as kit:
        await kit.send("emails", "soon", delay=0.1)
        await kit.send("emails", "later", delay=60)
        assert [o.state for o in await kit.drain()] == ["scheduled", "scheduled"]
        assert [o.state for o in await kit.drain(ahead=5)] == ["done", "scheduled"]


async def test_drain_when_a_handler_does_not_end_then_timeout_error_says_what_is_left() -> None:
    shop = Shop()
    async with running(shop.service) as kit:
        await kit.send("slow", "x")
        await shop.started.wait()
        with pytest.raises(TimeoutError, match=r"not drained after 0.05 s.*'slow': .*'active': 1"):
            await kit.drain(timeout=0.05)


async def test_running_when_it_ends_then_the_configuration_is_as_before_even_after_an_error() -> None:
    shop = Shop()
    before = shop.service.config

    async def fail() -> None:
        async with running(shop.service):
            assert shop.service.config.queue == before.queue
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert shop.service.config is before
    with pytest.raises(MqError):
        await shop.service.start()


async def test_running_when_the_configuration_was_not_read_yet_then_it_is_still_to_be_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[queue]\nattempts = 1\n")
    service = Service(path)

    @service.handler("jobs")
    async def job(_body: object) -> None:
        raise ValueError

    async with running(service) as kit:
        await kit.send("jobs", 1)
        (outcome,) = await kit.drain()
        assert (outcome.state, outcome.attempts_used) == ("dead", 1)
    path.write_text("[queue]\nattempts = 7\n")
    assert service.config.queue.attempts == 7


async def test_running_when_two_run_at_once_or_one_after_the_other_then_each_starts_empty() -> None:
    one, other = Shop(), Shop()
    async with running(one.service) as kit, running(other.service) as other_kit:
        await kit.send("emails", "ann")
        assert len(await kit.drain()) == 1
        assert await other_kit.drain() == []
    async with running(one.service) as kit:
        assert await kit.drain() == []


async def test_running_when_http_is_asked_for_then_it_listens_and_else_there_is_no_url() -> None:
    shop = Shop()
    async with running(shop.service, http=True) as kit:
        host, port = kit.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
    async with running(shop.service) as kit:
        with pytest.raises(RuntimeError):
            _ = kit.url


def test_fixture_when_a_users_project_names_the_plugin_then_its_test_passes(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["mqservice.pytest_plugin"]\n')
    (tmp_path / "shop.py").write_text(
        textwrap.dedent(
            """
            from mqservice import Service

            service = Service()

            @service.handler("emails")
            async def send_email(email: dict) -> dict:
                return {"to": email["to"]}
            """
        )
    )
    (tmp_path / "test_shop.py").write_text(
        textwrap.dedent(
            """
            from shop import service

            async def test_email(mqservice_kit):
                async with mqservice_kit(service) as kit:
                    await kit.send("emails", {"to": "ann"})
                    (outcome,) = await kit.drain()
                    assert outcome.result == {"to": "ann"}
            """
        )
    )
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout


def test_service_when_imported_then_pytest_is_not() -> None:
    code = "import sys, mqservice, mqservice.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
