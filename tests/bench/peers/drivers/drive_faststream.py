"""FastStream: publishes to a Redis list, one by one and by its publish_batch."""

import asyncio
import logging

import uvloop
from faststream.redis import RedisBroker
from pace import say, send_by_callers, send_in_batches, wish

WISH = wish()
logging.disable(logging.INFO)


async def main():
    async with RedisBroker(WISH.url, logger=None) as broker:
        one_by_one = await send_by_callers(lambda number: broker.publish(number, list="noop"), WISH.count)

        async def send_batch(numbers):
            await broker.publish_batch(*numbers, list="noop-batch")

        say(send_per_s=one_by_one, batch_per_s=await send_in_batches(send_batch, WISH.count))


uvloop.run(asyncio.wait_for(main(), 120))
