"""What the tests of the dashboard serve: the demo's handlers, a queue that fails, one that never ends by itself."""

import asyncio

from mqservice import Message
from mqservice.demo import service

__all__ = ["service"]


@service.handler("mails", attempts=2, retry=0.01)
async def mails(body: dict[str, str]) -> str:
    """Fail for who has no address."""
    if "to" not in body:
        raise ValueError("nobody to send it to")
    return body["to"]


@service.handler("reports")
async def reports(body: int, message: Message) -> None:
    """Say how far it is, and go on until it is cancelled."""
    await message.progress(0.25, f"page 1 of {body}")
    await asyncio.Event().wait()
