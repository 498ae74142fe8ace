"""arq: its worker on uvloop, polling as often as its loop lets it, since its throughput is bounded by that."""

import asyncio
import logging
import os

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func
from pace import Pace, say, send_by_callers, wish

WISH = wish()
PACE = Pace(WISH.count)
MAX_JOBS = getattr(WISH, "concurrency", 100)
POLL_DELAY_S = getattr(WISH, "poll_delay", 0.01)  # with its defaults, 10 jobs and 0.5 s, it drained 200/s
logging.disable(logging.INFO)


async def noop(_, number):
    PACE.tick()
    return number


async def main():
    settings = RedisSettings.from_dsn(WISH.url)
    pool = await create_pool(settings)
    rate = await send_by_callers(lambda number: pool.enqueue_job("noop", number), WISH.count)
    if WISH.do == "send":
        say(send_per_s=rate)
    else:
        worker = Worker(
            functions=[func(noop, name="noop")],
            redis_settings=settings,
            max_jobs=MAX_JOBS,
            poll_delay=POLL_DELAY_S,
            handle_signals=False,
        )
        running = asyncio.create_task(worker.async_run())
        await PACE.ended.wait()
        running.cancel()
        await asyncio.wait([running], timeout=5)
        os._exit(0)  # its own close waits for jobs that it has cancelled
    await pool.aclose()


uvloop.run(asyncio.wait_for(main(), 120))
