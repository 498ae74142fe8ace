"""What `mqservice serve` runs unless told otherwise: the tutorial's two listeners, and two queues to try things on."""

import asyncio
from typing import Annotated, Any

from msgspec import Meta

from mqservice.service import Service

service = Service()


@service.handler("prodcons", key="task:prodcons:queue")
async def prodcons(digit: str) -> None:
    """Print what one of all consumers gets."""
    print("Task get", digit, flush=True)  # noqa: T201 - the tutorial's own output


@service.handler("echo")
async def echo(body: Any) -> Any:
    """Return the body."""
    return body.hex() if isinstance(body, bytes) else body


@service.handler("sleep")
async def sleep(seconds: Annotated[float, Meta(ge=0, le=3600)]) -> float:
    """Take so many seconds, and return them."""
    await asyncio.sleep(seconds)
    return seconds


@service.subscriber("pubsub", key="task:pubsub:channel")
async def pubsub(digit: str) -> None:
    """Print what every subscriber gets."""
    print("Task get", digit, flush=True)  # noqa: T201
