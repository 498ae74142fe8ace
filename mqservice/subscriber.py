"""The subscriber: hands what is published on a channel to its function, one message at a time, in order.

Run by the service as one watched task a function. A function slower than its channel has a bounded backlog; beyond it
messages are dropped and counted, as pub/sub promises nothing else.
"""

import asyncio

import msgspec
import structlog

from mqservice.broker import new_id
from mqservice.handlers import Handler
from mqservice.message import NO_META, Message

log = structlog.get_logger()

BACKLOG = 10_000
"""Messages that wait for a slow subscriber."""


class Subscriber:
    """One function that follows one channel or pattern."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.dropped = 0
        self._backlog: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue()
        self._stopped = False

    def deliver(self, channel: str, body: bytes) -> None:
        """Take a message in, or drop it when the backlog is full."""
        if self._stopped:
            return
        if self._backlog.qsize() < BACKLOG:
            self._backlog.put_nowait((channel, body))
            return
        if self.dropped == 0:
            log.warning("subscriber too slow", channel=self.handler.name, backlog=BACKLOG)
        self.dropped += 1

    def stop(self) -> None:
        """Take nothing new. `run()` returns when the backlog is done. Works before start and twice."""
        if not self._stopped:
            self._stopped = True
            self._backlog.put_nowait(None)

    async def run(self) -> None:
        """Call the function for each message until stopped. A function that raises is logged and called again."""
        while (item := await self._backlog.get()) is not None:
            await self._call(*item)

    async def _call(self, channel: str, body: bytes) -> None:
        try:
            value = self.handler.decode(body, NO_META)
            await self.handler.call(value, Message(new_id(), channel), None)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("undecodable", channel=channel, error=str(error))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            log.error("subscriber failed", channel=channel, error=repr(error))
        except (Exception, SystemExit) as error:  # the edge: the function is not ours, nor is its sys.exit()
            log.error("subscriber failed", channel=channel, error=repr(error), exc_info=error)
