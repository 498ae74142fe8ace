"""taskiq: its list or stream broker, its own defaults for a worker process, on uvloop."""

import asyncio
import logging

import uvloop
from pace import Pace, say, send_by_callers, wish
from taskiq.acks import AcknowledgeType
from taskiq.api import run_receiver_task
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

WISH = wish()
PACE = Pace(WISH.count)
PREFETCH = getattr(WISH, "prefetch", 100 if WISH.broker == "list" else 0)  # what was faster for each
logging.disable(logging.WARNING)

broker = ListQueueBroker(WISH.url) if WISH.broker == "list" else RedisStreamBroker(WISH.url, consumer_id="0")
if WISH.results:
    broker = broker.with_result_backend(RedisAsyncResultBackend(WISH.url, result_ex_time=3600))


@broker.task(task_name="noop")
async def noop(number: int) -> int:
    PACE.tick()
    return number


async def main():
    await broker.startup()
    rate = await send_by_callers(noop.kiq, WISH.count)
    if WISH.do == "send":
        say(send_per_s=rate)
    else:
        running = asyncio.create_task(
            run_receiver_task(broker, max_prefetch=PREFETCH, ack_time=AcknowledgeType.WHEN_SAVED)
        )
        await PACE.ended.wait()
        running.cancel()
        await asyncio.wait([running], timeout=5)
    await broker.shutdown()


uvloop.run(asyncio.wait_for(main(), 120))
