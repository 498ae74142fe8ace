"""A crowd of HTTP clients in another process: one request each, all at once. `python -m tests.bench.crowd '{}'`."""

import asyncio
import time

import aiohttp
import uvloop

from tests.bench.answering import answer
from tests.bench.subject import percentiles


async def main() -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(method: str, url: str, body: object) -> float:
            began_at = time.perf_counter()
            async with session.request(method, url, json=body) as response:
                await response.read()
                if response.status != 200:
                    raise RuntimeError(f"{method} {url}: {response.status}")
            return (time.perf_counter() - began_at) * 1000

        async def at_once(method: str, url: str, clients: int, body: object = None) -> dict[str, float]:
            return percentiles(await asyncio.gather(*(one(method, url, body) for _ in range(clients))))

        await answer({"at_once": at_once}, {})


if __name__ == "__main__":
    uvloop.run(main())
