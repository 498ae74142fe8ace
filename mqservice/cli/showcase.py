"""The handlers of `mqservice demo`: the tutorial's, and one that fails sometimes."""

import asyncio
import random

from mqservice.demo import service
from mqservice.message import Message
from mqservice.retry import Reject, Retry

__all__ = ["service"]


@service.handler("flaky", concurrency=20, attempts=3, retry=1, retry_max=5)
async def flaky(order: int, message: Message) -> dict[str, int]:
    """Fail one time in four, ask for another try one time in ten, reject one in fifty."""
    for step in range(1, 5):
        await asyncio.sleep(random.uniform(0.01, 0.15))  # noqa: S311
        await message.progress(step / 4, f"step {step} of 4")
    chance = random.random()  # noqa: S311
    if chance < 0.02:
        raise Reject(f"order {order} is not for sale")
    if chance < 0.12:
        raise Retry(delay=2)
    if chance < 0.37:
        raise ConnectionError(f"the warehouse did not answer for order {order}")
    return {"order": order, "attempt": message.attempt}


@service.subscriber("prices.*")
async def on_price(_price: float) -> None:
    """Listen, so that publishing finds somebody."""
