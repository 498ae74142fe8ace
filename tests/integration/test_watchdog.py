"""Consumers prove themselves: what is stuck is told by the probes, and begun anew."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis
from structlog.testing import capture_logs

from mqservice import Service
from mqservice.broker import Broker
from mqservice.config import Config
from mqservice.errors import Refused
from mqservice.lag import LoopLag
from mqservice.log import stand_aside
from mqservice.runtime import Parts
from tests.processes import fetch
from tests.waiting import until, until_async


def service_of(config: Config, ran: list[int]) -> Service:
    service = Service(config)

    @service.handler("jobs")
    async def run(number: int) -> None:
        ran.append(number)

    return service


async def test_consumer_when_redis_refuses_its_claims_then_readyz_tells_why_and_livez_asks_for_no_restart(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqservice.watchdog._LOOK_S", 0.1)
    monkeypatch.setattr("mqservice.watchdog._RESTART_S", 0.2)
    monkeypatch.setattr("mqservice.watchdog.ALIVE_S", 0.2)
    monkeypatch.setattr("mqservice.runtime.READY_S", 0.2)
    ran: list[int] = []
    service = service_of(config, ran)

    async def refused(self: Broker, *args: Any) -> Any:
        raise Refused("hash value is not an integer")

    async with service:
        with monkeypatch.context() as damaged, capture_logs() as logs:
            damaged.setattr(Broker, "claim", refused)
            await service.send("jobs", 1)

            async def told() -> bool:
                answer = await asyncio.to_thread(fetch, f"{service.url}/readyz")
                return answer == (503, "queue jobs is out of order: hash value is not an integer\n")

            await until_async(told)
            assert (await asyncio.to_thread(fetch, f"{service.url}/livez"))[0] == 200
        assert not [line for line in logs if "restarted" in line["event"]]
        await until(lambda: ran == [1], 15)


async def test_consumer_when_its_claims_hang_for_ever_then_probes_tell_and_the_watchdog_restarts_it(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqservice.watchdog._LOOK_S", 0.1)
    monkeypatch.setattr("mqservice.watchdog._RESTART_S", 1.5)
    monkeypatch.setattr("mqservice.runtime.READY_S", 0.7)
    claim, hang = Broker.claim, True
    hanging = asyncio.Event()

    async def stuck(self: Broker, *args: Any) -> Any:
        if hang:
            hanging.set()
            await asyncio.Event().wait()
        return await claim(self, *args)

    ran: list[int] = []
    service = service_of(config, ran)
    monkeypatch.setattr(Broker, "claim", stuck)
    async with service:
        await service.send("jobs", 1)
        await asyncio.wait_for(hanging.wait(), 5)
        assert (await asyncio.to_thread(fetch, f"{service.url}/readyz"))[0] == 200

        async def not_ready() -> bool:
            status, text = await asyncio.to_thread(fetch, f"{service.url}/readyz")
            return status == 503 and "no answer to its consumers" in text

        await until_async(not_ready)
        assert (await asyncio.to_thread(fetch, f"{service.url}/livez"))[0] == 200
        monkeypatch.setattr("mqservice.watchdog.ALIVE_S", 0.0)
        assert (await asyncio.to_thread(fetch, f"{service.url}/livez"))[0] == 503
        hang = False
        await until(lambda: ran == [1])


async def test_livez_when_redis_is_away_then_a_restart_is_not_asked_for(
    config: Config, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqservice.watchdog.ALIVE_S", 0.0)
    async with service_of(config, []) as service:
        await redis_client.client_pause(4000, all=True)
        try:
            assert (await asyncio.to_thread(fetch, f"{service.url}/livez"))[0] == 200
        finally:
            await redis_client.client_unpause()


async def test_consumer_when_idle_then_it_settles_an_outcome_of_nothing_now_and_then(
    config: Config, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mqservice.consumer._PROVE_S", 0.3)
    monkeypatch.setattr("mqservice.consumer._TICK_S", 0.05)
    settled = 0
    settle_many = Broker.settle_many

    async def counted(self: Broker, outcomes: Any) -> list[bool]:
        nonlocal settled
        settled += 1
        answers = await settle_many(self, outcomes)
        assert answers == [False]
        return answers

    monkeypatch.setattr(Broker, "settle_many", counted)
    service = service_of(config, [])
    await service.start(Parts(http=False))
    try:
        await until(lambda: settled >= 3)
        watchdog = service._running().watchdog
        assert watchdog is not None
        assert watchdog.silent_s < 2
    finally:
        await service.stop()
    assert int(await redis_client.hget("{mq:jobs}:info", "done") or 0) == 0


async def test_lag_when_the_loop_is_blocked_then_told_with_the_stack_and_the_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    structlog.reset_defaults()  # a test that captured lines before this one has left structlog configured
    stand_aside()
    monkeypatch.setattr("mqservice.lag._REPORT_S", 0.1)
    monkeypatch.setattr("mqservice.lag._LOOK_S", 0.02)
    lag = LoopLag(lambda task: {"id": task.get_name() if task else ""})
    watching = asyncio.to_thread(lambda: asyncio.run(_for_a_while(lag.watch)))
    both = [asyncio.create_task(lag.beat()), asyncio.create_task(watching)]
    await asyncio.sleep(0.1)
    blocking = asyncio.create_task(_block_for(0.5), name="the culprit")
    await blocking
    await until(lambda: lag.worst_ms > 300)
    both[0].cancel()
    await asyncio.wait(both)
    for text in ("event loop stuck", "the culprit", "_block_for"):
        assert text in caplog.text


async def _for_a_while(run: Callable[[], Any]) -> None:
    try:
        async with asyncio.timeout(1.0):
            await run()
    except TimeoutError:
        return


async def _block_for(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
