"""A thousand clients that wait for results at once, beside as many plain GETs: `python -m tests.bench.http_wait`."""

import asyncio
import json
import statistics
import time

import aiohttp
import uvloop

from mqservice import demo
from mqservice.config import Config, HttpConfig, RedisConfig
from mqservice.embedded import private_server

CLIENTS = 1_000


async def timed(session: aiohttp.ClientSession, method: str, url: str, body: object = None) -> tuple[int, float]:
    """Status and seconds of one request."""
    began_at = time.perf_counter()
    async with session.request(method, url, json=body) as answer:
        await answer.read()
        return answer.status, time.perf_counter() - began_at


def report(figure: str, answers: list[tuple[int, float]]) -> float:
    """Print p50 and p99 in ms, and how many were 200; return the p99."""
    times = statistics.quantiles([seconds * 1000 for _, seconds in answers], n=100)
    ok = sum(status == 200 for status, _ in answers)
    print(json.dumps({"figure": figure, "p50_ms": round(times[49], 1), "p99_ms": round(times[98], 1), "ok": ok}))
    return times[98]


async def main() -> None:
    """Run the demo service in this process and its clients beside it, all at once."""
    async with private_server() as server:
        demo.service.configure(Config(redis=RedisConfig(url=server.url(5), embedded="never"), http=HttpConfig(port=0)))
        connector = aiohttp.TCPConnector(limit=0)
        async with demo.service as service, aiohttp.ClientSession(connector=connector) as session:
            url = service.url
            await asyncio.gather(*(timed(session, "GET", f"{url}/livez") for _ in range(CLIENTS)))  # connections open
            plain = await asyncio.gather(*(timed(session, "GET", f"{url}/livez") for _ in range(CLIENTS)))
            waits = await asyncio.gather(
                *(timed(session, "POST", f"{url}/v1/queues/echo/messages?wait=10", {"n": n}) for n in range(CLIENTS))
            )
            base = report(f"GET /livez, {CLIENTS} at once", list(plain))
            p99 = report(f"POST ?wait=10, {CLIENTS} at once", list(waits))
            print(json.dumps({"figure": "p99 of waiting over p99 of a plain GET", "ratio": round(p99 / base, 2)}))


if __name__ == "__main__":
    uvloop.run(main())
