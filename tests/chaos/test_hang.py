"""The hang of the tutorial's consumer, shown; and ours beside it, behind the same proxy, under the same cut."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from tests.chaos.ledger import Ledger
from tests.chaos.load import handled, now, ours, settled
from tests.chaos.matrix import Row
from tests.chaos.proxy import Proxy
from tests.chaos.servers import Valkey
from tests.waiting import until

QUEUE = "task:prodcons:queue"


class TutorialConsumer:
    """What the tutorial runs: BLPOP without a timeout on a connection without one."""

    def __init__(self, port: int) -> None:
        self.got: list[str] = []
        # The redis-py of the tutorial had no socket timeout; the present one ends the wait after 5 s, by an exception.
        self._redis = redis.Redis(host="127.0.0.1", port=port, db=5, socket_timeout=None, decode_responses=True)
        self._thread = threading.Thread(target=self._listen, name="tutorial", daemon=True)

    @property
    def alive(self) -> bool:
        """It waits, and nothing tells that it waits in vain."""
        return self._thread.is_alive()

    def _listen(self) -> None:
        try:
            while True:
                self.got.append(self._redis.blpop([QUEUE], 0)[1])
        except redis.RedisError:
            return  # only when the test ends

    @contextmanager
    def running(self, proxy: Proxy) -> Iterator[None]:
        """Listen for the length of the block."""
        self._thread.start()
        try:
            yield
        finally:
            proxy.refusing = True
            proxy.cut()
            self._thread.join(10)
            self._redis.close()


async def test_connections_when_swallowed_then_the_tutorials_consumer_hangs_and_loses_and_ours_goes_on(
    valkey: Valkey,
    proxy: Proxy,
    ledger: Ledger,
    row: Callable[..., Row],
    record_property: Callable[[str, object], None],
) -> None:
    ours_row = row("idle connections swallowed, beside the tutorial's", 5.0)
    tutorial = TutorialConsumer(proxy.port)
    with valkey.client() as client:
        with tutorial.running(proxy):
            async with ours(proxy.url(), ledger):
                client.rpush(QUEUE, 1)
                client.rpush(ledger.key, 1)
                await until(lambda: tutorial.got == ["1"])
                await handled(ledger, 1, 0.0)
                await until(lambda: int(client.info("clients")["blocked_clients"]) == 2)

                proxy.swallow()
                cut_at = now()
                client.rpush(QUEUE, 2)
                client.rpush(ledger.key, 2)
                ledger.acknowledge(1, 2)
                ours_row.going_again(await handled(ledger, 2, cut_at))
                client.rpush(QUEUE, 3)
                client.rpush(ledger.key, 3)
                ledger.acknowledge(3)
                await handled(ledger, 3, cut_at)
                await settled(ledger, valkey)

                silent_s = now() - cut_at
                assert tutorial.alive, "nothing tells it"
                assert tutorial.got == ["1"], "it hangs"
                assert client.lrange(QUEUE, 0, -1) == ["3"], "2 was popped for a dead client: lost; 3 waits for ever"
        ours_row.close(ledger.balance(client))
    record_property(
        "note", f"the tutorial's consumer: handled 1 of 3, lost 1, silent for {silent_s:.1f} s, for ever if let"
    )
    record_property("note", f"ours beside it: handled 3 of 3, lost 0, going again after {ours_row.took_s[0]:.1f} s")


@pytest.mark.parametrize("direction", ["requests", "replies"])
async def test_connections_when_one_direction_is_swallowed_then_going_again_within_5_s(
    valkey: Valkey, proxy: Proxy, ledger: Ledger, row: Callable[..., Row], direction: str
) -> None:
    figures = row(f"only {direction} swallowed, on all connections", 5.0)
    with valkey.client() as client:
        async with ours(proxy.url(), ledger):
            client.rpush(ledger.key, 1)
            await handled(ledger, 1, 0.0)
            proxy.swallow(requests=direction == "requests", replies=direction == "replies")
            cut_at = now()
            client.rpush(ledger.key, 2)
            ledger.acknowledge(1, 2)
            figures.going_again(await handled(ledger, 2, cut_at))
            await settled(ledger, valkey)
        figures.close(ledger.balance(client))


async def test_connections_when_swallowed_with_the_pool_full_of_idle_ones_then_going_again_within_5_s(
    valkey: Valkey, proxy: Proxy, ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row("idle connections swallowed, with 16 in the pool", 5.0)
    with valkey.client() as client:
        async with ours(proxy.url(), ledger) as service:
            await asyncio.gather(*(service.publish("nobody", n) for n in range(200)))
            assert proxy.connections >= 16
            proxy.swallow()
            cut_at = now()
            client.rpush(ledger.key, *range(20))
            ledger.acknowledge(*range(20))
            for n in range(20):
                figures.going_again(await handled(ledger, n, cut_at))
            await settled(ledger, valkey)
        figures.close(ledger.balance(client))


async def test_subscriber_when_its_connection_is_swallowed_then_hears_again_within_10_s(
    valkey: Valkey, proxy: Proxy, ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row("a subscriber's connection swallowed: hears what is published", 10.0)
    heard: list[int] = []
    with valkey.client() as client:
        async with ours(proxy.url(), ledger, subscriber=heard.append):
            client.publish("news", 1)
            await until(lambda: heard == [1])
            proxy.swallow()
            cut_at = now()

            def hears() -> bool:
                return client.publish("news", 2) > 0 and 2 in heard

            await until(hears, 15)
            figures.going_again(now() - cut_at)
        figures.close(ledger.balance(client))
