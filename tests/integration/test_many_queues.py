"""Names of queues come from outside: however many are asked for, little is kept of them."""

import asyncio

import pytest

from mqservice import Service, backend, results
from mqservice.config import Config
from mqservice.message import Outgoing
from tests.waiting import until


async def test_brokers_when_many_queues_are_asked_for_then_few_are_kept_and_no_send_is_lost(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_BROKERS", 10)
    monkeypatch.setattr(results, "_QUEUES", 10)
    service = Service(config)
    handled: list[int] = []

    @service.handler("served")
    async def served(number: int) -> int:
        handled.append(number)
        return number

    async with service:
        running = service._running().backend
        own = running.broker("served")
        under_way = [asyncio.ensure_future(running.broker(f"q{n}").send(Outgoing("one", b"1"))) for n in range(50)]
        await asyncio.sleep(0)
        kept = running.broker("q0")
        for n in range(100, 200):
            running.broker(f"q{n}")
            assert running.broker("served") is own
            assert running.broker("q0") is kept or kept.is_idle
        assert await asyncio.gather(*under_way) == ["ready"] * 50
        for n in range(50):
            sent = await service.send(f"q{n}", 1, id="one")
            assert sent.existed
            with pytest.raises(TimeoutError):
                await sent.result(timeout=0.001)
        running.broker("q200")  # those that wait for an answer stay; now none does
        assert len(running._brokers) <= 11
        assert len(running.waiters._queues) <= 10
        await service.send("served", 1)
        await until(lambda: handled == [1])
