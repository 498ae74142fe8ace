"""What the service is measured against: the same machine, the same server, the same minute, nothing of ours."""

import asyncio
import shutil
import subprocess
import time

import redis.asyncio

from tests.bench.lab import Lab

REDIS_BENCHMARK = "yardstick: redis-benchmark -t rpush -P 100"
PIPELINE = "yardstick: redis-py pipeline of 100 RPUSH"


async def redis_benchmark(lab: Lab, count: int = 300_000) -> dict[str, float]:
    """RPUSHes a second by redis-benchmark; nothing where it is not installed."""
    program = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if program is None:
        return {}
    command = [program, "-s", str(lab.server.socket), *f"-t rpush -P 100 -n {count} -q --csv".split()]
    run = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True, timeout=60)
    await lab.clear()
    return {REDIS_BENCHMARK: float(run.stdout.strip().splitlines()[-1].split(",")[1].strip('"'))}


async def pipeline(lab: Lab, count: int = 20_000, size: int = 0) -> float:
    """RPUSHes a second by one redis-py connection, 100 a pipeline."""
    body = bytes(size) if size else b"7"
    async with redis.asyncio.from_url(lab.server.url(5), protocol=3) as client:
        await client.ping()
        began_at = time.perf_counter()
        for _ in range(count // 100):
            async with client.pipeline(transaction=False) as batch:
                for _ in range(100):
                    batch.rpush("yardstick", body)
                await batch.execute()
        took_s = time.perf_counter() - began_at
    await lab.clear()
    return count / took_s


async def both(lab: Lab) -> dict[str, float]:
    """The two that stand beside every figure of sending and draining."""
    return {**await redis_benchmark(lab), PIPELINE: await pipeline(lab)}
