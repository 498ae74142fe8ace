"""Ours, by the same rules as everybody: one process, defaults, its own batch call."""

import asyncio
import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from pace import BATCH, Pace, say, send_by_callers, send_in_batches, wish

from mqservice import Service, log
from mqservice.config import Config, HttpConfig, LogConfig, RedisConfig
from mqservice.runtime import Parts

WISH = wish()
PACE = Pace(WISH.count)
log.set_up(LogConfig(level="error"))
service = Service(Config(redis=RedisConfig(url=WISH.url, embedded="never"), http=HttpConfig(port=0)))


@service.handler("noop")
async def noop(number: int) -> int:
    PACE.tick()
    return number


async def send_batch(numbers: range) -> None:
    await service.send_many("noop", list(numbers))


async def drain() -> None:
    await service.start(Parts(http=False, consumers=False))
    for first in range(0, WISH.count, BATCH):
        await send_batch(range(first, min(first + BATCH, WISH.count)))
    await service.stop()
    await service.start(Parts())
    await PACE.ended.wait()
    await service.stop()


async def send() -> None:
    await service.start(Parts(http=False, consumers=False))
    one_by_one = await send_by_callers(lambda number: service.send("noop", number), WISH.count)
    say(send_per_s=one_by_one, batch_per_s=await send_in_batches(send_batch, WISH.count))
    await service.stop()


if __name__ == "__main__":
    uvloop.run(asyncio.wait_for(drain() if WISH.do == "drain" else send(), 120))
