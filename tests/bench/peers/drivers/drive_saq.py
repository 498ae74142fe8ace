"""SAQ: its Redis queue, a worker on uvloop."""

import asyncio
import logging

import uvloop
from pace import Pace, say, send_by_callers, wish
from saq import Queue, Worker

WISH = wish()
PACE = Pace(WISH.count)
CONCURRENCY = getattr(WISH, "concurrency", 10)  # its default; with 50 and 100 it drained 0.65 and 0.45 times that
logging.disable(logging.INFO)


async def noop(_, *, number):
    PACE.tick()
    return number


async def main():
    queue = Queue.from_url(WISH.url)
    await queue.connect()
    rate = await send_by_callers(lambda number: queue.enqueue("noop", number=number), WISH.count)
    if WISH.do == "send":
        say(send_per_s=rate)
    else:
        worker = Worker(queue=queue, functions=[noop], concurrency=CONCURRENCY)
        running = asyncio.create_task(worker.start())
        await PACE.ended.wait()
        await worker.stop()
        await asyncio.wait([running], timeout=5)
    await queue.disconnect()


uvloop.run(asyncio.wait_for(main(), 120))
