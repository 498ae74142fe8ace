"""The executor: a claimed message in, an outcome out. No Redis, no HTTP, no state.

Called by the consumers, once a delivery. Whatever a handler does (return, raise, hang, exit) ends as plain data.
"""

import asyncio
import time
import traceback
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

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
from mqservice.tracing import RUNNING

Report = Callable[[Receipt, float, str], Awaitable[object]]

_is_running = RUNNING.set
"""Looked up once: to say what runs takes 0.1 µs of each message."""

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
        started = time.monotonic()
        _is_running(claimed)
        try:
            body = self.handler.decode(claimed.body, claimed.meta)
        except Exception as error:  # noqa: BLE001 - also a too deep nesting, and what a type's own check raises
            return Dead("undecodable", self._attempt(claimed, error, started))
        try:
            result = JSON.encode(await self._call(body, claimed))
            if len(result) > RESULT_BYTES:
                raise ResultTooLarge(f"the result has {len(result)} bytes, at most {RESULT_BYTES} are kept")
            return Done(result)
        except Retry as wish:
            return self._asked_again(claimed, wish, started)
        except Reject as wish:
            return Dead("rejected", self._attempt(claimed, wish, started))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self._failed(claimed, self._attempt(claimed, error, started))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - the edge: the handler is not ours, nor is its sys.exit()
            return self._failed(claimed, self._attempt(claimed, error, started))

    def failed(self, claimed: Claimed, error: BaseException, took_s: float) -> Outcome:
        """Say what a run comes to that did not end as it should: its handler cancelled itself, or goes on for ever."""
        return self._failed(claimed, self._attempt(claimed, error, time.monotonic() - took_s))

    async def _call(self, body: object, claimed: Claimed) -> Any:
        """Call the handler, in a context of its own, and return what it returns.

        Its first step runs without a deadline: what has not suspended yet could not be cancelled, and what never
        does, as most small handlers, is spared a timer.
        """
        handler = self.handler
        args = (body, self._message(claimed)) if handler.wants_message else (body,)
        if not handler.suspends:
            return await self._in_time(handler.call_in(self.threads, args))
        context = copy_context()
        coroutine = context.run(handler.function, *args)
        try:
            awaited = context.run(coroutine.send, None)
        except StopIteration as end:
            return end.value
        return await self._in_time(_rest_of(coroutine, context, awaited))

    async def _in_time(self, rest: Awaitable[Any]) -> Any:
        deadline = asyncio.timeout(self.queue.timeout_s)
        try:
            async with deadline:
                return await rest
        except TimeoutError:
            if deadline.expired():
                raise TimeoutError(f"the handler took longer than {self.queue.timeout_s:g} s") from None
            raise

    def _message(self, claimed: Claimed) -> Message:
        return Message(
            claimed.receipt.id,
            self.queue.name,
            claimed.meta.headers,
            claimed.attempts + 1,
            claimed.sent_ms,
            partial(self.report, claimed.receipt) if self.report else None,
        )

    def _asked_again(self, claimed: Claimed, wish: Retry, started: float) -> Outcome:
        try:
            return self._failed(claimed, self._attempt(claimed, wish, started), wish.delay_ms)
        except ValueError as error:
            return self._failed(claimed, self._attempt(claimed, error, started))

    def _failed(self, claimed: Claimed, attempt: Attempt, delay_ms: int | None = None) -> Outcome:
        failures = claimed.attempts + 1
        budget = claimed.meta.attempts or self.queue.attempts
        if failures >= budget:
            return Dead("failed", attempt)
        if delay_ms is None:
            first_s = self.queue.retry_s if claimed.meta.retry_s is None else claimed.meta.retry_s
            delay_ms = attempt_delay_ms(failures, first_s, self.queue.retry_max_s)
        return RetryIn(delay_ms, attempt)

    def _attempt(self, claimed: Claimed, error: BaseException, started: float) -> Attempt:
        wanted = isinstance(error, (Retry, Reject, msgspec.MsgspecError))
        trace = "" if wanted else "".join(traceback.format_exception(error))[-_TRACEBACK_CHARS:]
        return Attempt(
            at_ms=claimed.claimed_ms,
            took_ms=int((time.monotonic() - started) * 1000),
            type=type(error).__name__,
            text=_storable(_text(error)[:_TEXT_CHARS]),
            traceback=_storable(trace),
            by=self.by,
        )


@types.coroutine
def _rest_of(coroutine: Coroutine[Any, Any, Any], context: Context, awaited: Any) -> Generator[Any, Any, Any]:
    """Go on with a coroutine that has suspended on `awaited`, each step in its own context."""
    while True:
        try:
            sent = yield awaited
        except BaseException as error:  # noqa: BLE001 - thrown in by the task, and handed on
            step: partial[Any] = partial(coroutine.throw, error)
        else:
            step = partial(coroutine.send, sent)
        try:
            awaited = context.run(step)
        except StopIteration as end:
            return end.value


def _storable(text: str) -> str:
    """Return the text with what UTF-8 cannot hold, such as lone surrogates, replaced."""
    return text.encode(errors="replace").decode()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an exception class of the handler's with a broken __str__
        return "<its text could not be made>"
