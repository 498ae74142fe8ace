"""The executor: a claimed message in, an outcome out. No Redis, no HTTP, no state.

Called by the consumers, once a delivery. Whatever a handler does (return, raise, hang, exit) ends as plain data.
"""

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import msgspec

from mqservice.config import QueueOptions
from mqservice.handlers import Handler
from mqservice.message import (
    JSON,
    Attempt,
    Claimed,
    Dead,
    Done,
    Message,
    Outcome,
    Receipt,
    RetryIn,
)
from mqservice.retry import Reject, Retry, attempt_delay_ms

Report = Callable[[Receipt, float, str], Awaitable[object]]

RESULT_BYTES = 1 << 20
"""Largest result that is kept; a larger one fails the attempt."""

_TEXT_CHARS = 2_000
_TRACEBACK_CHARS = 8_000


class ResultTooLarge(ValueError):
    """The handler's return value is larger than a result may be."""


@dataclass(frozen=True)
class Execution:
    """How messages of one queue are run: by which handler, within which limits, on behalf of whom."""

    handler: Handler
    queue: QueueOptions
    by: str
    threads: Executor | None = None
    report: Report | None = None
    """Carries `message.progress` to Redis."""

    async def run(self, claimed: Claimed) -> Outcome:
        """Decode the body, call the handler, and say what it came to.

        Raises CancelledError only when this task was cancelled from outside; a handler that raises it by itself
        has failed.
        """
        started, at_ms = time.monotonic(), time.time_ns() // 1_000_000
        try:
            body = self.handler.decode(claimed.body, claimed.meta)
        except Exception as error:  # noqa: BLE001 - also a too deep nesting, and what a type's own check raises
            return Dead("undecodable", self._attempt(error, at_ms, started))
        try:
            return Done(await self._result(body, claimed))
        except Retry as wish:
            return self._asked_again(claimed, wish, at_ms, started)
        except Reject as wish:
            return Dead("rejected", self._attempt(wish, at_ms, started))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self._failed(claimed, self._attempt(error, at_ms, started))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - the edge: the handler is not ours, nor is its sys.exit()
            return self._failed(claimed, self._attempt(error, at_ms, started))

    def overdue(self, claimed: Claimed) -> Outcome:
        """Say what a run comes to whose handler was cancelled at its timeout and went on regardless."""
        error = TimeoutError(f"the handler ignored its cancellation after {self.queue.timeout_s:g} s")
        at_ms = time.time_ns() // 1_000_000 - int(self.queue.timeout_s * 1000)
        return self._failed(claimed, self._attempt(error, at_ms, time.monotonic() - self.queue.timeout_s))

    async def _result(self, body: object, claimed: Claimed) -> bytes:
        message = Message(
            claimed.receipt.id,
            self.queue.name,
            claimed.meta.headers,
            claimed.attempts + 1,
            claimed.sent_ms,
            partial(self.report, claimed.receipt) if self.report else None,
        )
        deadline = asyncio.timeout(self.queue.timeout_s)
        try:
            async with deadline:
                result = await self.handler.call(body, message, self.threads)
        except TimeoutError:
            if deadline.expired():
                raise TimeoutError(f"the handler took longer than {self.queue.timeout_s:g} s") from None
            raise
        encoded = JSON.encode(result)
        if len(encoded) > RESULT_BYTES:
            raise ResultTooLarge(f"the result has {len(encoded)} bytes, at most {RESULT_BYTES} are kept")
        return encoded

    def _asked_again(self, claimed: Claimed, wish: Retry, at_ms: int, started: float) -> Outcome:
        try:
            return self._failed(claimed, self._attempt(wish, at_ms, started), wish.delay_ms)
        except ValueError as error:
            return self._failed(claimed, self._attempt(error, at_ms, started))

    def _failed(self, claimed: Claimed, attempt: Attempt, delay_ms: int | None = None) -> Outcome:
        failures = claimed.attempts + 1
        budget = claimed.meta.attempts or self.queue.attempts
        if failures >= budget:
            return Dead("failed", attempt)
        if delay_ms is None:
            first_s = self.queue.retry_s if claimed.meta.retry_s is None else claimed.meta.retry_s
            delay_ms = attempt_delay_ms(failures, first_s, self.queue.retry_max_s)
        return RetryIn(delay_ms, attempt)

    def _attempt(self, error: BaseException, at_ms: int, started: float) -> Attempt:
        wanted = isinstance(error, (Retry, Reject, msgspec.MsgspecError))
        trace = "" if wanted else "".join(traceback.format_exception(error))[-_TRACEBACK_CHARS:]
        return Attempt(
            at_ms=at_ms,
            took_ms=int((time.monotonic() - started) * 1000),
            type=type(error).__name__,
            text=_storable(_text(error)[:_TEXT_CHARS]),
            traceback=_storable(trace),
            by=self.by,
        )


def _storable(text: str) -> str:
    """Return the text with what UTF-8 cannot hold, such as lone surrogates, replaced."""
    return text.encode(errors="replace").decode()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception class of the handler's with a broken __str__
        return "<its text could not be made>"
