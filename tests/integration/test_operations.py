"""What people do to queues, and what they see of them, on a real server."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from redis.asyncio import Redis

from mqservice import Message, Reject, Retry, Service
from mqservice.config import Config
from mqservice.errors import BadCursor
from mqservice.message import Outgoing
from mqservice.message_view import MessageView
from mqservice.operations import Operations
from mqservice.results import Waiters
from mqservice.runtime import Parts, Runtime
from mqservice.views import Views
from tests.waiting import until, until_async

K = "mq:jobs"


class Jobs:
    """A service with one queue whose handler does what the body says."""

    def __init__(self, config: Config) -> None:
        self.service = Service(config)
        self.started: list[str] = []
        self.gate = asyncio.Event()
        self.service.handler("jobs")(self.handle)

    async def handle(self, body: str, message: Message) -> str:
        self.started.append(message.id)
        if body == "wait":
            await message.progress(0.5, "half way")
            await self.gate.wait()
        if body == "reject":
            raise Reject("not today")
        if body == "retry":
            raise Retry(delay=3600)
        if body == "crash":
            raise ValueError("no")
        return f"did {body}"

    @property
    def runtime(self) -> Runtime:
        return self.service._running()

    @property
    def views(self) -> Views:
        return self.runtime.backend.views("jobs")

    @property
    def operations(self) -> Operations:
        return self.runtime.backend.operations("jobs")

    @property
    def waiters(self) -> Waiters:
        return self.runtime.backend.waiters

    async def view(self, message_id: str) -> MessageView:
        view = await self.views.message(message_id)
        assert view is not None
        return view

    async def until_state(self, message_id: str, state: str) -> MessageView:
        async def reached() -> bool:
            return (await self.view(message_id)).state == state

        await until_async(reached)
        return await self.view(message_id)


@pytest.fixture
async def make_jobs(config: Config) -> AsyncIterator[Callable[[], Jobs]]:
    """Make services that are stopped after the test, whatever became of it."""
    made: list[Jobs] = []

    def make() -> Jobs:
        made.append(Jobs(config))
        return made[-1]

    yield make
    for jobs in made:
        await jobs.service.stop(0.1)


@pytest.fixture
def jobs(make_jobs: Callable[[], Jobs]) -> Jobs:
    return make_jobs()


PARTS = Parts(http=False)
NO_CONSUMERS = Parts(http=False, consumers=False)


async def the_sum_holds(redis: Redis, views: Views) -> bool:
    info = {
        key.decode(): int(value) for key, value in (await redis.hgetall(f"{{{K}}}:info")).items() if key != b"paused"
    }
    counts = (await views.queue()).counts
    present = counts.ready + counts.active + counts.scheduled + counts.dead + counts.done + counts.cancelled
    return info.get("sent", 0) == present + info.get("purged", 0) + info.get("forgotten", 0)


async def test_result_when_done_then_waited_for_without_polling(jobs: Jobs, redis_client: Redis) -> None:
    await jobs.service.start(PARTS)
    sent = await jobs.service.send("jobs", "wait")
    queue = jobs.runtime.backend.broker("jobs").queue
    waiting = asyncio.create_task(jobs.waiters.wait(queue, sent.id, 10), name="wait")
    await until(lambda: jobs.started)
    before = (await redis_client.info("commandstats")).get("cmdstat_hstrlen", {}).get("calls", 0)
    jobs.gate.set()
    view = await waiting
    assert view is not None
    assert (view.state, view.result, view.body) == ("done", "did wait", "wait")
    after = (await redis_client.info("commandstats"))["cmdstat_hstrlen"]["calls"]
    assert after - before == 1


async def test_wait_when_nobody_handles_then_the_view_at_the_timeout_and_none_for_unknown(jobs: Jobs) -> None:
    await jobs.service.start(NO_CONSUMERS)
    sent = await jobs.service.send("jobs", "x")
    queue = jobs.runtime.backend.broker("jobs").queue
    view = await jobs.waiters.wait(queue, sent.id, 0.05)
    assert view is not None
    assert view.state == "ready"
    assert await jobs.waiters.wait(queue, "nobody", 5) is None


async def test_wait_when_a_thousand_wait_in_another_process_then_all_get_theirs(make_jobs: Callable[[], Jobs]) -> None:
    sender, worker = make_jobs(), make_jobs()
    await sender.service.start(NO_CONSUMERS)
    sent = [await sender.service.send("jobs", f"{n}") for n in range(1000)]
    queue = sender.runtime.backend.broker("jobs").queue
    waits = [asyncio.create_task(sender.waiters.wait(queue, s.id, 20), name="wait") for s in sent]
    await worker.service.start(PARTS)
    results = [view.result for view in await asyncio.gather(*waits) if view is not None]
    assert results == [f"did {n}" for n in range(1000)]


async def test_cancel_when_ready_or_scheduled_then_at_once_and_never_run(jobs: Jobs, redis_client: Redis) -> None:
    await jobs.service.start(NO_CONSUMERS)
    ready = await jobs.service.send("jobs", "x")
    later = await jobs.service.send("jobs", "x", delay=60)
    kept = await jobs.service.send("jobs", "x")
    for sent in (ready, later, ready):
        assert await jobs.operations.cancel(sent.id) == "cancelled"
        assert (await jobs.view(sent.id)).state == "cancelled"
    counts = (await jobs.views.queue()).counts
    assert (counts.ready, counts.scheduled, counts.cancelled) == (1, 0, 2)
    await jobs.service.stop(5)
    await jobs.service.start(PARTS)
    await jobs.until_state(kept.id, "done")
    assert jobs.started == [kept.id]
    assert await redis_client.hget(f"{{{K}}}:info", "tombstones") == b"0"
    assert await redis_client.ttl(f"{{{K}}}:m:{ready.id}") > 0
    assert await the_sum_holds(redis_client, jobs.views)


async def test_cancel_when_active_in_another_process_then_its_coroutine_ends_within_1_s(
    make_jobs: Callable[[], Jobs],
) -> None:
    sender, worker = make_jobs(), make_jobs()
    await sender.service.start(NO_CONSUMERS)
    await worker.service.start(PARTS)
    sent = await sender.service.send("jobs", "wait")
    await until(lambda: worker.started)
    assert await sender.operations.cancel(sent.id) == "cancelling"

    async def cancelled() -> bool:
        return (await sender.view(sent.id)).state == "cancelled"

    await until_async(cancelled, 1.0)
    assert await sender.operations.cancel(sent.id) == "cancelled"


async def test_cancel_when_done_dead_or_unknown_then_it_says_so(jobs: Jobs) -> None:
    await jobs.service.start(PARTS)
    done, dead = await jobs.service.send("jobs", "x"), await jobs.service.send("jobs", "reject")
    await jobs.until_state(done.id, "done")
    await jobs.until_state(dead.id, "dead")
    assert await jobs.operations.cancel(done.id) == "done"
    assert await jobs.operations.cancel(dead.id) == "dead"
    assert await jobs.operations.cancel("nobody") is None


async def test_view_when_a_handler_reports_or_fails_then_progress_attempts_and_reason_are_seen(jobs: Jobs) -> None:
    await jobs.service.start(PARTS)
    slow = await jobs.service.send("jobs", "wait", headers={"trace": "abc"})
    await until(lambda: jobs.started)
    view = await jobs.view(slow.id)
    assert view.progress
    assert (view.progress.fraction, view.progress.text) == (0.5, "half way")
    assert (view.state, view.headers) == ("active", {"trace": "abc"})
    dead = await jobs.until_state((await jobs.service.send("jobs", "crash", attempts=1)).id, "dead")
    assert dead.error
    assert (dead.reason, dead.error.type, dead.error.text) == ("failed", "ValueError", "no")
    assert "ValueError" in dead.error.traceback
    retried = await jobs.until_state((await jobs.service.send("jobs", "retry")).id, "scheduled")
    assert (len(retried.attempts), retried.attempts_used) == (1, 1)
    jobs.gate.set()


async def test_replay_when_dead_then_ready_with_its_id_history_and_new_budgets(jobs: Jobs, redis_client: Redis) -> None:
    await jobs.service.start(PARTS)
    sent = await jobs.service.send("jobs", "reject")
    await jobs.until_state(sent.id, "dead")
    await jobs.operations.pause()
    assert await jobs.operations.replay(sent.id) == "replayed"
    view = await jobs.view(sent.id)
    assert (view.state, view.attempts_used, len(view.attempts)) == ("ready", 0, 1)
    assert await redis_client.ttl(f"{{{K}}}:m:{sent.id}") == -1
    assert await jobs.operations.replay(sent.id) == "ready"
    assert await jobs.operations.replay("nobody") is None
    await jobs.operations.resume()
    await jobs.until_state(sent.id, "dead")
    assert len((await jobs.view(sent.id)).attempts) == 2
    assert await the_sum_holds(redis_client, jobs.views)


async def test_replay_all_when_filtered_and_paced_then_only_those_one_after_the_other(jobs: Jobs) -> None:
    await jobs.service.start(PARTS)
    rejected = [(await jobs.service.send("jobs", "reject")).id for _ in range(3)]
    failed = (await jobs.service.send("jobs", "crash", attempts=1)).id
    for message_id in (*rejected, failed):
        await jobs.until_state(message_id, "dead")
    await jobs.operations.pause()
    assert await jobs.operations.replay_all(reason="rejected", limit=2, rate=0.1) == 2
    assert [(await jobs.view(i)).state for i in rejected] == ["ready", "scheduled", "dead"]
    assert await jobs.operations.replay_all(until_ms=1) == 0
    assert await jobs.operations.replay_all() == 2


async def test_pause_when_set_then_nothing_is_claimed_anywhere_until_resumed(jobs: Jobs) -> None:
    await jobs.service.start(PARTS)
    await jobs.operations.pause()
    sent = await jobs.service.send("jobs", "x")
    view = await jobs.views.queue()
    assert (view.paused, view.counts.ready, view.consumers) == (True, 1, 1)
    assert view.oldest_s is not None
    await jobs.operations.resume()
    await jobs.until_state(sent.id, "done")
    view = await jobs.views.queue()
    assert (view.paused, view.counts.done, view.oldest_s) == (False, 1, None)
    assert view.rates.in_per_s > 0


@pytest.mark.parametrize("state", ["ready", "scheduled", "dead", "done", "cancelled"])
async def test_purge_when_of_one_state_then_those_are_gone_and_no_others(
    jobs: Jobs, redis_client: Redis, state: str
) -> None:
    await jobs.service.start(PARTS)
    ends = {"dead": "reject", "done": "x"}
    ids = {end: (await jobs.service.send("jobs", body)).id for end, body in ends.items()}
    for end, message_id in ids.items():
        await jobs.until_state(message_id, end)
    await jobs.operations.pause()
    ids["scheduled"] = (await jobs.service.send("jobs", "x", delay=60)).id
    ids["cancelled"] = (await jobs.service.send("jobs", "x", delay=60)).id
    await jobs.operations.cancel(ids["cancelled"])
    ids["ready"] = (await jobs.service.send("jobs", "x")).id
    await redis_client.rpush(K, "raw")
    assert await jobs.operations.purge(state) == (2 if state == "ready" else 1)  # type: ignore[arg-type]
    left = {s for s, message_id in ids.items() if await jobs.views.message(message_id) is not None}
    assert left == set(ids) - {state}


async def test_page_when_read_through_then_each_once_in_order_and_bad_cursors_are_refused(
    jobs: Jobs, redis_client: Redis
) -> None:
    await jobs.service.start(NO_CONSUMERS)
    ids = [(await jobs.service.send("jobs", f"{n}")).id for n in range(25)]
    await redis_client.rpush(K, "raw")
    seen, cursor = [], None
    while True:
        page = await jobs.views.page("ready", 10, cursor)
        seen += [(view.id, view.body) for view in page.messages]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [*((i, f"{n}") for n, i in enumerate(ids)), ("", "raw")]
    with pytest.raises(BadCursor):
        await jobs.views.page("ready", 10, "-1")


async def test_send_when_unique_key_is_held_then_refused_until_the_other_has_ended(jobs: Jobs) -> None:
    await jobs.service.start(PARTS)
    broker = jobs.runtime.backend.broker("jobs")
    assert await broker.send(Outgoing("one", b'"wait"', unique="invoice 7")) == "ready"
    await until(lambda: jobs.started == ["one"])
    assert await broker.send(Outgoing("two", b'"x"', unique="invoice 7")) == "!one"
    assert await broker.send(Outgoing("one", b'"x"', unique="invoice 7")) == "=active"
    assert await jobs.views.message("two") is None
    jobs.gate.set()
    await jobs.until_state("one", "done")
    assert await broker.send(Outgoing("two", b'"x"', unique="invoice 7")) == "ready"


async def test_send_when_the_queue_is_full_then_refused_and_a_batch_as_a_whole(jobs: Jobs) -> None:
    await jobs.service.start(NO_CONSUMERS)
    broker = jobs.runtime.backend.broker("jobs")
    broker.queue = jobs.service.config.queue_options("jobs", max_length=3)
    assert await broker.send_many([Outgoing(f"a{n}", b"1") for n in range(4)]) == ["full"] * 4
    answers = await asyncio.gather(*(broker.send(Outgoing(f"b{n}", b"1")) for n in range(5)))
    assert answers == ["ready"] * 3 + ["full"] * 2
    assert (await jobs.views.queue()).counts.ready == 3
    assert 1 <= await broker.retry_after_s() <= 60


async def test_send_when_a_message_sets_its_retry_then_it_waits_that_long(jobs: Jobs) -> None:
    await jobs.service.start(PARTS)
    sent = await jobs.service.send("jobs", "crash", attempts=2, retry=0.01)
    view = await jobs.until_state(sent.id, "dead")
    assert (view.reason, len(view.attempts)) == ("failed", 2)
    with pytest.raises(ValueError, match="delay"):
        await jobs.service.send("jobs", "x", delay=-1)
