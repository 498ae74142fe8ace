"""BullMQ for Python, on uvloop; jobs are added one by one and by its addBulk."""

import asyncio
import logging

import uvloop
from bullmq import Queue, Worker
from pace import BATCH, Pace, say, send_by_callers, send_in_batches, wish

WISH = wish()
PACE = Pace(WISH.count)
logging.disable(logging.INFO)


async def noop(job, _):
    PACE.tick()
    return job.data["number"]


async def main():
    queue = Queue("noop", {"connection": WISH.url})

    async def send_batch(numbers):
        await queue.addBulk([{"name": "noop", "data": {"number": number}, "opts": {}} for number in numbers])

    if WISH.do == "send":
        one_by_one = await send_by_callers(lambda number: queue.add("noop", {"number": number}), WISH.count)
        say(send_per_s=one_by_one, batch_per_s=await send_in_batches(send_batch, WISH.count))
    else:
        for first in range(0, WISH.count, BATCH):
            await send_batch(range(first, min(first + BATCH, WISH.count)))
        worker = Worker("noop", noop, {"connection": WISH.url, "concurrency": getattr(WISH, "concurrency", 20)})
        await PACE.ended.wait()
        await worker.close(force=True)
    await queue.close()


uvloop.run(asyncio.wait_for(main(), 120))
