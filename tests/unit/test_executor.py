"""The executor: whatever a handler does, an outcome comes of it."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest

from mqservice.config import QueueOptions
from mqservice.executor import RESULT_BYTES, Execution
from mqservice.handlers import Registry
from mqservice.message import JSON, NO_META, Attempt, Claimed, Dead, Done, Message, Meta, Receipt, RetryIn
from mqservice.retry import Reject, Retry

SENT_MS = 1_700_000_000_000


class Letter(msgspec.Struct):
    to: str


class Mute(Exception):
    """An exception whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, thread_name_prefix="handler") as threads:
        yield threads


def execution(
    function: Callable[..., Any],
    threads: ThreadPoolExecutor | None = None,
    *,
    attempts: int = 3,
    timeout_s: float = 60,
    retry_s: float = 2,
) -> Execution:
    registry = Registry()
    registry.handler("letters", {})(function)
    queue = QueueOptions(name="letters", key="mq:letters", attempts=attempts, timeout_s=timeout_s, retry_s=retry_s)
    return Execution(registry.handlers["letters"], queue, "host-1", threads)


def claimed(body: bytes = b"7", meta: Meta = NO_META, attempts: int = 0) -> Claimed:
    receipt = Receipt("id-1", "8000000000000001")
    return Claimed(receipt, body, meta, attempts, crashes=0, sent_ms=SENT_MS, claimed_ms=SENT_MS + 5)


def raising(error: BaseException) -> Callable[[Any], Any]:
    async def read(body: Any) -> None:
        raise error

    return read


async def failed(run: Execution, message: Claimed | None = None) -> Attempt:
    """Run and return the attempt of the RetryIn that it must come to."""
    outcome = await run.run(message or claimed())
    assert isinstance(outcome, RetryIn)
    return outcome.attempt


# Returning


async def test_run_when_the_handler_returns_then_the_result_is_json() -> None:
    async def read(body: int) -> dict[str, int]:
        return {"seen": body}

    assert await execution(read).run(claimed()) == Done(b'{"seen":7}')


@pytest.mark.parametrize(
    ("result", "expected"), [(None, b"null"), ("饭", '"饭"'.encode()), (Letter("a"), b'{"to":"a"}')]
)
async def test_run_when_the_handler_returns_what_json_can_hold_then_it_is_done(result: Any, expected: bytes) -> None:
    async def read(body: Any) -> Any:
        return result

    assert await execution(read).run(claimed()) == Done(expected)


async def test_run_when_the_handler_wants_the_message_then_it_sees_where_it_stands() -> None:
    seen = []

    async def read(body: Letter, message: Message) -> None:
        seen.append((body, message.id, message.queue, message.headers, message.attempt, message.sent_at_ms))

    await execution(read).run(claimed(b'{"to":"a"}', Meta(headers={"trace": "t"}), attempts=2))
    assert seen == [(Letter("a"), "id-1", "letters", {"trace": "t"}, 3, SENT_MS)]


@pytest.mark.parametrize(
    "result", [object(), {(1, 2): 3}, lambda: None, "\udcff"], ids=lambda value: type(value).__name__
)
async def test_run_when_the_result_is_no_json_then_the_attempt_has_failed(result: Any) -> None:
    async def read(body: Any) -> Any:
        return result

    attempt = await failed(execution(read))
    assert attempt.type in {"TypeError", "UnicodeEncodeError"}
    assert attempt.text


async def test_run_when_the_result_contains_itself_then_the_attempt_has_failed() -> None:
    async def read(body: Any) -> Any:
        result: list[Any] = []
        result.append(result)
        return result

    assert (await failed(execution(read))).type == "RecursionError"


async def test_run_when_the_result_is_as_large_as_allowed_then_it_is_kept() -> None:
    async def read(body: Any) -> str:
        return "x" * (RESULT_BYTES - 2)

    outcome = await execution(read).run(claimed())
    assert isinstance(outcome, Done)
    assert len(outcome.result) == RESULT_BYTES


async def test_run_when_the_result_is_too_large_then_the_attempt_has_failed_and_says_both_sizes() -> None:
    async def read(body: Any) -> str:
        return "x" * (RESULT_BYTES - 1)

    attempt = await failed(execution(read))
    assert attempt.type == "ResultTooLarge"
    assert attempt.text == f"the result has {RESULT_BYTES + 1} bytes, at most {RESULT_BYTES} are kept"


# Failing


async def test_run_when_the_handler_raises_then_it_is_tried_again_and_the_attempt_is_told() -> None:
    outcome = await execution(raising(ValueError("no such relay"))).run(claimed())
    assert isinstance(outcome, RetryIn)
    assert 1_000 <= outcome.delay_ms <= 2_000
    attempt = outcome.attempt
    assert (attempt.type, attempt.text, attempt.by) == ("ValueError", "no such relay", "host-1")
    assert "no such relay" in attempt.traceback
    assert __file__ in attempt.traceback
    assert attempt.at_ms == SENT_MS + 5
    assert 0 <= attempt.took_ms < 5_000


async def test_run_when_attempts_have_failed_before_then_the_delay_has_grown() -> None:
    outcome = await execution(raising(ValueError()), attempts=10).run(claimed(attempts=4))
    assert isinstance(outcome, RetryIn)
    assert 16_000 <= outcome.delay_ms <= 32_000


@pytest.mark.parametrize(
    ("attempts", "override", "failed_before", "dead"),
    [
        (3, None, 1, False),
        (3, None, 2, True),
        (3, None, 3, True),
        (1, None, 0, True),
        (3, 5, 3, False),
        (3, 5, 4, True),
        (3, 1, 0, True),
    ],
)
async def test_run_when_the_handler_raises_then_the_budget_says_whether_it_is_dead(
    attempts: int, override: int | None, failed_before: int, dead: bool
) -> None:
    run = execution(raising(ValueError("no")), attempts=attempts)
    outcome = await run.run(claimed(meta=Meta(attempts=override), attempts=failed_before))
    if dead:
        assert isinstance(outcome, Dead)
        assert outcome.reason == "failed"
        assert outcome.attempt.text == "no"
    else:
        assert isinstance(outcome, RetryIn)


async def test_run_when_the_text_of_the_error_cannot_be_made_then_the_attempt_is_told_without() -> None:
    attempt = await failed(execution(raising(Mute())))
    assert attempt.type == "Mute"
    assert attempt.text == "<its text could not be made>"


async def test_run_when_the_text_of_the_error_is_long_then_it_is_cut_and_the_traceback_keeps_its_end() -> None:
    attempt = await failed(execution(raising(ValueError("x" * 100_000 + "end"))))
    assert len(attempt.text) == 2_000
    assert len(attempt.traceback) == 8_000
    assert attempt.traceback.rstrip().endswith("end")


async def test_run_when_the_text_of_the_error_is_no_unicode_then_the_attempt_can_be_stored_all_the_same() -> None:
    attempt = await failed(execution(raising(ValueError("no file \udcff"))))
    assert b"no file" in JSON.encode(attempt)


async def test_run_when_the_handler_exits_then_the_attempt_has_failed() -> None:
    async def read(body: Any) -> None:
        sys.exit("no")

    attempt = await failed(execution(read))
    assert (attempt.type, attempt.text) == ("SystemExit", "no")


class Odd(BaseException):
    """What some frameworks raise to slip past `except Exception`."""


async def test_run_when_the_handler_raises_a_base_exception_of_its_own_then_the_attempt_has_failed() -> None:
    try:
        outcome = await execution(raising(Odd("odd"))).run(claimed())
    except Odd:
        pytest.fail("it left run()")
    assert isinstance(outcome, RetryIn)


# Wishes


async def test_run_when_the_handler_asks_for_a_retry_then_its_delay_holds_and_it_costs_an_attempt() -> None:
    outcome = await execution(raising(Retry(delay=10.5))).run(claimed())
    assert isinstance(outcome, RetryIn)
    assert outcome.delay_ms == 10_500
    assert (outcome.attempt.type, outcome.attempt.traceback) == ("Retry", "")


async def test_run_when_the_handler_asks_for_a_retry_at_once_then_there_is_no_delay() -> None:
    outcome = await execution(raising(Retry(delay=0))).run(claimed())
    assert isinstance(outcome, RetryIn)
    assert outcome.delay_ms == 0


async def test_run_when_the_handler_asks_for_a_retry_without_delay_then_it_is_the_usual_one() -> None:
    outcome = await execution(raising(Retry())).run(claimed())
    assert isinstance(outcome, RetryIn)
    assert 1_000 <= outcome.delay_ms <= 2_000


async def test_run_when_the_handler_asks_for_a_retry_on_the_last_attempt_then_it_is_dead() -> None:
    outcome = await execution(raising(Retry(delay=1)), attempts=3).run(claimed(attempts=2))
    assert isinstance(outcome, Dead)
    assert (outcome.reason, outcome.attempt.type) == ("failed", "Retry")


@pytest.mark.parametrize("delay", [float("inf"), float("nan"), "soon"])
async def test_run_when_the_handler_asks_for_a_delay_that_is_none_then_the_attempt_has_failed(delay: Any) -> None:
    try:
        outcome = await execution(raising(Retry(delay=delay))).run(claimed())
    except (ValueError, OverflowError, TypeError) as error:
        pytest.fail(f"{error!r} left run()")
    assert isinstance(outcome, RetryIn)


async def test_run_when_the_handler_rejects_then_it_is_dead_at_once_for_its_reason() -> None:
    outcome = await execution(raising(Reject("blocked"))).run(claimed())
    assert isinstance(outcome, Dead)
    assert outcome.reason == "rejected"
    assert (outcome.attempt.type, outcome.attempt.text, outcome.attempt.traceback) == ("Reject", "blocked", "")


# Bodies


@pytest.mark.parametrize(
    ("body", "text"), [(b'{"to": 7}', "$.to"), (b"{", "truncated"), (b"", "truncated"), (b'{"to": "\xff"}', "utf-8")]
)
async def test_run_when_the_body_does_not_fit_then_it_is_dead_at_once_and_the_handler_not_called(
    body: bytes, text: str
) -> None:
    async def read(body: Letter) -> None:
        pytest.fail("called")

    outcome = await execution(read).run(claimed(body))
    assert isinstance(outcome, Dead)
    assert outcome.reason == "undecodable"
    assert text in outcome.attempt.text


@pytest.mark.parametrize("annotation", [Any, list])
async def test_run_when_the_body_is_nested_too_deeply_then_an_outcome_comes_of_it(annotation: Any) -> None:
    async def read(body):  # type: ignore[no-untyped-def]
        return None

    read.__annotations__ = {"body": annotation}
    try:
        outcome = await execution(read).run(claimed(b"[" * 200_000))
    except RecursionError:
        pytest.fail("RecursionError left run(): one such message stops every consumer")
    assert isinstance(outcome, (Dead, Done))


class Picky(msgspec.Struct):
    to: str

    def __post_init__(self) -> None:
        raise KeyError(self.to)


async def test_run_when_checking_the_body_raises_then_it_is_dead_at_once() -> None:
    async def read(body: Picky) -> None:
        pytest.fail("called")

    try:
        outcome = await execution(read).run(claimed(b'{"to": "a"}'))
    except KeyError:
        pytest.fail("KeyError left run()")
    assert isinstance(outcome, Dead)


# Time and cancellation


async def test_run_when_the_handler_takes_too_long_then_it_is_cancelled_and_the_attempt_says_how_long() -> None:
    cancelled = asyncio.Event()

    async def read(body: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    attempt = await failed(execution(read, timeout_s=0.01))
    assert (attempt.type, attempt.text) == ("TimeoutError", "the handler took longer than 0.01 s")
    assert cancelled.is_set()


async def test_run_when_the_handler_raises_timeout_error_itself_then_it_is_not_taken_for_ours() -> None:
    attempt = await failed(execution(raising(TimeoutError("the relay took too long"))))
    assert (attempt.type, attempt.text) == ("TimeoutError", "the relay took too long")


async def test_run_when_a_deadline_inside_the_handler_passes_then_it_is_not_taken_for_ours() -> None:
    async def read(body: Any) -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    attempt = await failed(execution(read))
    assert attempt.type == "TimeoutError"
    assert "the handler took longer" not in attempt.text


async def test_run_when_the_handler_raises_cancelled_error_itself_then_the_attempt_has_failed() -> None:
    attempt = await failed(execution(raising(asyncio.CancelledError("mine"))))
    assert (attempt.type, attempt.text) == ("CancelledError", "mine")


async def test_run_when_the_handler_awaits_a_cancelled_task_then_the_attempt_has_failed() -> None:
    async def read(body: Any) -> None:
        other = asyncio.create_task(asyncio.Event().wait(), name="other")
        other.cancel()
        await other

    assert (await failed(execution(read))).type == "CancelledError"


async def test_run_when_cancelled_from_outside_then_the_handler_is_and_the_cancellation_goes_on() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def read(body: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    running = asyncio.create_task(execution(read).run(claimed()), name="message")
    await begun.wait()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert cancelled.is_set()


# Threads


async def test_run_when_the_handler_is_plain_then_it_runs_in_a_thread_and_its_result_is_kept(
    threads: ThreadPoolExecutor,
) -> None:
    def read(body: int) -> bool:
        return threading.current_thread().name.startswith("handler")

    assert await execution(read, threads).run(claimed()) == Done(b"true")


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit("no"), Reject("no"), asyncio.CancelledError("no")])
async def test_run_when_a_plain_handler_raises_then_the_outcome_is_as_for_any_other(
    threads: ThreadPoolExecutor, error: BaseException
) -> None:
    def read(body: Any) -> None:
        raise error

    outcome = await execution(read, threads).run(claimed())
    assert isinstance(outcome, Dead if isinstance(error, Reject) else RetryIn)
    assert (outcome.attempt.type, outcome.attempt.text) == (type(error).__name__, "no")


async def test_run_when_a_plain_handler_runs_out_of_an_iterator_then_that_is_told_and_not_a_timeout(
    threads: ThreadPoolExecutor,
) -> None:
    def read(body: Any) -> None:
        next(iter([]))

    attempt = await failed(execution(read, threads, timeout_s=0.1))
    assert attempt.type != "TimeoutError"


async def test_run_when_a_plain_handler_takes_too_long_then_it_is_left_behind(threads: ThreadPoolExecutor) -> None:
    let_go = threading.Event()

    def read(body: Any) -> None:
        let_go.wait(5)

    try:
        assert (await failed(execution(read, threads, timeout_s=0.01))).text == "the handler took longer than 0.01 s"
    finally:
        let_go.set()


async def test_run_when_a_plain_handler_is_cancelled_from_outside_then_it_is_left_behind(
    threads: ThreadPoolExecutor,
) -> None:
    begun, let_go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def read(body: Any) -> None:
        loop.call_soon_threadsafe(begun.set)
        let_go.wait(5)

    running = asyncio.create_task(execution(read, threads).run(claimed()), name="message")
    try:
        await begun.wait()
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
    finally:
        let_go.set()


async def test_run_when_the_queue_or_the_message_sets_the_retry_then_that_is_the_delay() -> None:
    failing = execution(raising(ValueError()), retry_s=100.0)
    outcome = await failing.run(claimed())
    assert isinstance(outcome, RetryIn)
    assert 50_000 <= outcome.delay_ms <= 100_000
    outcome = await failing.run(msgspec.structs.replace(claimed(), meta=Meta(retry_s=0.01)))
    assert isinstance(outcome, RetryIn)
    assert outcome.delay_ms <= 10


async def test_run_when_handlers_set_context_variables_then_the_next_does_not_see_them() -> None:
    seen, variable = [], ContextVar("variable", default="none")

    async def read(body: int) -> None:
        seen.append(variable.get())
        variable.set("before")
        if body == 2:
            await asyncio.sleep(0)
            seen.append(variable.get())
            variable.set("after")

    run = execution(read)
    for body in (b"1", b"2", b"3"):
        await run.run(claimed(body))
    assert seen == ["none", "none", "before", "none"]


async def test_run_when_the_handler_sets_a_timeout_of_its_own_then_it_strikes_in_that_handler() -> None:
    async def read(body: int) -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "timed out"
        raise AssertionError

    assert await execution(read).run(claimed()) == Done(b'"timed out"')


async def test_run_when_the_handler_awaits_again_and_again_then_each_answer_reaches_it() -> None:
    async def read(body: int) -> list[int]:
        found = []
        for number in range(3):
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(future.set_result, number)
            found.append(await future)
        with contextlib.suppress(ValueError):
            failing = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(failing.set_exception, ValueError())
            await failing
        return found

    assert await execution(read).run(claimed()) == Done(b"[0,1,2]")
