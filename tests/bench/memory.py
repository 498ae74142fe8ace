"""A million messages through one process, its memory flat: `python -m tests.bench.memory [messages]`.

Sends and handles in this process; the server is another one. Every tenth is tried twice, every hundredth dies, every
tenth has a unique key. At the end the queue is deleted, and what is left in Redis is counted.
"""

import asyncio
import gc
import json
import sys
import time
from typing import Any

import redis.asyncio
import uvloop

from mqservice import Reject, Retry, Service
from mqservice.config import Config, HttpConfig, QueueConfig, RedisConfig
from mqservice.embedded import private_server
from mqservice.operations import Operations
from mqservice.runtime import Parts
from tests.probes import rss_bytes

MESSAGES = 1_000_000
SENDERS = 100
RESULT_TTL_S = 2.0


class Load:
    """Sends messages of many kinds, and waits until every one of them has ended."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._sent = self._ended = 0

        @service.handler("load", retry=0.001)
        async def load(number: int) -> int:
            if number % 100 == 7:
                self._ended += 1
                raise Reject("a dead letter")
            if number % 10 == 3 and number not in self._retried:
                self._retried.add(number)
                raise Retry(delay=0.01)
            self._retried.discard(number)
            self._ended += 1
            return number

        self._retried: set[int] = set()

    async def run(self, count: int) -> None:
        """Send so many, a hundred callers at once."""
        await asyncio.gather(*(self._call(range(n, count, SENDERS)) for n in range(SENDERS)))
        while self._ended < self._sent:
            await asyncio.sleep(0.01)

    async def _call(self, numbers: range) -> None:
        for number in numbers:
            keys: dict[str, Any] = {"unique": f"u{number}"} if number % 10 == 5 else {}
            await self._service.send("load", self._sent, **keys)
            self._sent += 1


async def measure(service: Service, client: redis.asyncio.Redis, messages: int) -> dict[str, Any]:
    """Send and handle so many; return memory at each quarter and what was left."""
    load = Load(service)
    await service.start(Parts(http=False))
    began_at = time.perf_counter()
    await load.run(messages // 20)  # whatever is made once is made now
    gc.collect()
    rss, stored = [rss_bytes()], [await _stored(client)]
    for _ in range(4):
        await load.run(messages // 4)
        gc.collect()
        rss.append(rss_bytes())
        stored.append(await _stored(client))
    took_s = time.perf_counter() - began_at
    queue = service._running().backend.broker("load").queue
    dead = await client.zcard("{mq:load}:dead")
    await service.stop()
    await service.start(Parts(http=False, consumers=False))
    began_at = time.perf_counter()
    deleted = await Operations(service._running().backend.connections, queue).delete()
    delete_s = time.perf_counter() - began_at
    await service.stop()
    left = [key for key in await client.keys("*") if await client.ttl(key) == -1]
    return {
        "messages": messages,
        "per_s": round(messages * 1.05 / took_s),
        "rss_mib": [round(bytes_ / 2**20, 1) for bytes_ in rss],
        "grown_mib": round((rss[-1] - rss[0]) / 2**20, 1),
        "redis_mib": [round(bytes_ / 2**20, 1) for bytes_ in stored],
        "dead_letters": dead,
        "deleted": deleted,
        "delete_s": round(delete_s, 1),
        "keys_left_without_ttl": sorted(key.decode() for key in left),
    }


async def _stored(client: redis.asyncio.Redis) -> int:
    return int((await client.info("memory"))["used_memory"])


def config(url: str) -> Config:
    """Results that go soon, so that Redis is flat as well."""
    return Config(
        redis=RedisConfig(url=url, embedded="never"),
        http=HttpConfig(port=0),
        queue=QueueConfig(result_ttl_s=RESULT_TTL_S),
    )


async def main() -> None:
    """Measure and print."""
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else MESSAGES
    async with private_server() as server:
        client = redis.asyncio.from_url(server.url(5))
        print(json.dumps(await measure(Service(config(server.url(5))), client, messages)))
        await client.aclose()


if __name__ == "__main__":
    uvloop.run(main())
