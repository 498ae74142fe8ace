"""streaq: a worker on uvloop, tasks enqueued one by one and by its enqueue_many."""

import asyncio
import logging

import uvloop
from pace import BATCH, Pace, say, send_by_callers, send_in_batches, wish
from streaq import Worker

WISH = wish()
PACE = Pace(WISH.count)
logging.disable(logging.INFO)
worker = Worker(redis_url=WISH.url, concurrency=getattr(WISH, "concurrency", 16), handle_signals=False)


@worker.task
async def noop(number: int) -> int:
    PACE.tick()
    return number


async def send_batch(numbers):
    await worker.enqueue_many([noop.enqueue(number) for number in numbers])


async def send_one(number):
    await noop.enqueue(number)


async def main():
    async with worker:
        if WISH.do == "send":
            one_by_one = await send_by_callers(send_one, WISH.count)
            say(send_per_s=one_by_one, batch_per_s=await send_in_batches(send_batch, WISH.count))
            return
        for first in range(0, WISH.count, BATCH):
            await send_batch(range(first, min(first + BATCH, WISH.count)))
    running = asyncio.create_task(worker.run_async())
    await PACE.ended.wait()
    running.cancel()
    await asyncio.wait([running], timeout=5)


uvloop.run(asyncio.wait_for(main(), 120))
