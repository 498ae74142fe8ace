"""Random histories of one queue on a real server, beside a model in plain Python.

Time is not waited for: leases, due times and ends of life are moved into the past by hand.
"""

import asyncio
import threading
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeVar

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mqservice import keys, scripts
from mqservice.broker import MARK, Broker, claim_token
from mqservice.config import Config
from mqservice.connections import Connections
from mqservice.message import NO_META, Attempt, Cancelled, Dead, Done, Outcome, Outgoing, Receipt, RetryIn
from mqservice.operations import Operations, Purgeable

T = TypeVar("T")

IDS = ("a", "b", "c", "d", "e", "f")
CONSUMERS = ("c1", "c2", "c3")
UNIQUE = ("u", "v")
CRASHES = 3
LATER_MS = 3_600_000
FAILED = Attempt(at_ms=1, took_ms=2, type="ValueError", text="no")
ENDED = ("done", "dead", "cancelled")

SETTINGS = settings(
    max_examples=300,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


class Server:
    """One queue on a real server, from synchronous code: the state machine knows no event loop."""

    def __init__(self, url: str) -> None:
        # In a thread: each start of a loop in the main thread would cost more than the call.
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop")
        self._thread.start()
        self.connections = Connections(url, pool=1)
        options = Config().queue_options("jobs", lease_s=3600.0, crashes=CRASHES)
        self.key = options.key
        self.broker = Broker(self.connections, options)
        self.operations = Operations(self.connections, options)
        self.wait(self.connections.load(scripts.ALL))

    def wait(self, awaitable: Awaitable[T]) -> T:
        async def run() -> T:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def close(self) -> None:
        self.wait(self.broker.aclose())
        self.wait(self.connections.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def part(self, name: str) -> str:
        return keys.part(self.key, name)

    def record(self, message_id: str) -> str:
        return keys.record(self.key, message_id)

    def look(self) -> "Look":
        """Read everything there is. 1 round trip."""

        async def read() -> list[Any]:
            async with self.connections.commands.pipeline(transaction=True) as pipeline:
                pipeline.time()
                pipeline.lrange(self.key, 0, -1)
                for name in ("active", "scheduled", "dead"):
                    pipeline.zrange(self.part(name), 0, -1, withscores=True)
                pipeline.hgetall(self.part("leases"))
                pipeline.hgetall(self.part("info"))
                pipeline.mget([self.part(f"u:{unique}") for unique in UNIQUE])
                for message_id in IDS:
                    pipeline.hgetall(self.record(message_id))
                    pipeline.pttl(self.record(message_id))
                return await pipeline.execute()

        (seconds, micros), line, active, scheduled, dead, leases, info, holders, *records = self.wait(read())
        return Look(
            now_ms=seconds * 1000 + micros // 1000,
            line=[entry.removeprefix(MARK).decode() for entry in line],
            active={i.decode(): int(score) for i, score in active},
            scheduled={i.decode(): int(score) for i, score in scheduled},
            dead={i.decode(): int(score) for i, score in dead},
            leases={i.decode(): lease.decode() for i, lease in leases.items()},
            info={name.decode(): int(value) for name, value in info.items()},
            holders={u: holder.decode() for u, holder in zip(UNIQUE, holders, strict=True) if holder},
            records={
                message_id: {name.decode(): value.decode() for name, value in record.items()}
                for message_id, record in zip(IDS, records[::2], strict=True)
                if record
            },
            kept={message_id: ttl > 0 for message_id, ttl in zip(IDS, records[1::2], strict=True) if ttl != -2},
        )


class Look(NamedTuple):
    """What the server holds. Dictionaries of scores are in the order of the sorted set."""

    now_ms: int
    line: list[str]
    active: dict[str, int]
    scheduled: dict[str, int]
    dead: dict[str, int]
    leases: dict[str, str]
    info: dict[str, int]
    holders: dict[str, str]
    records: dict[str, dict[str, str]]
    kept: dict[str, bool]
    """Whether the record goes by itself after a while."""


@dataclass
class Known:
    """A message as the model has it."""

    state: str
    unique: str = ""
    can_expire: bool = False
    expired: bool = False
    claims: list[str] = field(default_factory=list)
    """The tokens of the claims that took it."""
    attempts: int = 0
    crashes: int = 0
    cancel: bool = False
    settled: str = ""
    reason: str = ""

    def held_by(self, receipt: Receipt) -> bool:
        return self.state == "active" and self.claims[-1] == receipt.claim


class Model:
    """The queue as it should be. Verbs return what the real ones should answer."""

    def __init__(self) -> None:
        self.messages: dict[str, Known] = {}
        self.line: list[str] = []
        """Ready ids in order, and those cancelled while they were ready."""
        self.outlived: set[str] = set()
        """Dead letters that are still listed when their record has gone."""
        self.paused = False
        self.counts = dict.fromkeys(("sent", "done", "cancelled", "purged", "forgotten"), 0)
        self.ledgers: dict[str, tuple[str, list[Receipt]]] = {}

    def of(self, state: str) -> list[str]:
        return [i for i, message in self.messages.items() if message.state == state]

    def tombstones(self) -> list[str]:
        return [i for i in self.line if self.messages[i].state == "cancelled"]

    def holders(self) -> dict[str, str]:
        return {m.unique: i for i, m in self.messages.items() if m.unique and m.state not in ENDED}

    def send(self, message: Outgoing) -> str:
        known = self.messages.get(message.id)
        if known:
            return f"={known.state}"
        holder = self.holders().get(message.unique)
        if holder:
            return f"!{holder}"
        state = "scheduled" if message.delay_ms else "ready"
        self.messages[message.id] = Known(state, message.unique, can_expire=message.ttl_ms > 0)
        self.counts["sent"] += 1
        if state == "ready":
            self.line.append(message.id)
        return state

    def claim(self, token: str, consumer: str, room: int, look: Look) -> list[Receipt]:
        last, receipts = self.ledgers.get(consumer, ("", []))
        if token == last:
            return [r for r in receipts if r.id in self.messages and self.messages[r.id].held_by(r)]
        if self.paused:
            return []
        given: list[Receipt] = []
        for i in [i for i, deadline in look.active.items() if deadline < look.now_ms][:room]:
            self._take(i, "active", token, given)
        for i in [i for i, due in look.scheduled.items() if due <= look.now_ms][: room - len(given)]:
            self._take(i, "scheduled", token, given)
        room -= len(given)
        heads, self.line = self.line[:room], self.line[room:]
        for i in heads:
            self._take(i, "ready", token, given)
        if given:
            self.ledgers[consumer] = (token, given)
        return given

    def _take(self, message_id: str, state: str, token: str, given: list[Receipt]) -> None:
        message = self.messages[message_id]
        if message.state != state:
            return
        if message.cancel:
            self._cancelled(message)
            return
        message.crashes += state == "active"
        if state == "active" and message.crashes >= CRASHES:
            self._bury(message_id, "crashed")
        elif message.expired and not message.claims:
            self._bury(message_id, "expired")
        else:
            message.state = "active"
            message.claims.append(token)
            given.append(Receipt(message_id, token))

    def settle(self, receipt: Receipt, kind: str) -> bool:
        message = self.messages.get(receipt.id)
        if message is None:
            return False
        if not message.held_by(receipt):
            done = kind == message.state == "done" and message.claims[-1] == receipt.claim
            converted = kind == "retry" and message.settled == f"cancelled {receipt.claim}"
            return done or converted or message.settled == f"{kind} {receipt.claim}"
        if kind == "retry" and message.cancel:
            kind = "cancelled"  # nobody wants another attempt
        if kind != "done":
            message.settled = f"{kind} {receipt.claim}"
        message.attempts += kind in ("dead", "retry")
        if kind == "done":
            message.state = "done"
            self.counts["done"] += 1
        elif kind == "dead":
            self._bury(receipt.id, "failed")
        elif kind == "cancelled":
            self._cancelled(message)
        else:
            message.state = "scheduled"
        return True

    def release(self, receipts: Sequence[Receipt]) -> list[bool]:
        released, answers = [], []
        for receipt in receipts:
            message = self.messages.get(receipt.id)
            if message and message.held_by(receipt):
                message.state, message.settled = "ready", f"release {receipt.claim}"
                released.append(receipt.id)
            answers.append(message is not None and message.settled == f"release {receipt.claim}")
        self.line = released + self.line
        return answers

    def renew(self, receipt: Receipt) -> int:
        message = self.messages.get(receipt.id)
        if message is None or not message.held_by(receipt):
            return 0
        return 2 if message.cancel else 1

    def cancel(self, message_id: str) -> str | None:
        message = self.messages.get(message_id)
        if message is None:
            return None
        if message.state == "active":
            message.cancel = True
            return "cancelling"
        if message.state in ("ready", "scheduled"):
            self._cancelled(message)
        return message.state

    def replay(self, message_id: str, token: str = "", *, later: bool = False) -> str | None:
        message = self.messages.get(message_id)
        if message is None:
            return None
        if message.state == "dead":
            message.state = "scheduled" if later else "ready"
            message.settled = f"replay {token}"
            message.attempts = message.crashes = 0
            message.expired = message.can_expire = message.cancel = False
            message.unique = message.reason = ""
            if not later:
                self.line.append(message_id)
        return message.state

    def purge(self, state: str) -> int:
        gone = self.of(state)
        if state == "ready":
            for i in self.tombstones():  # nobody would ever let go of their records
                del self.messages[i]
            self.line = []
        for i in gone:
            del self.messages[i]
        if state not in ("done", "cancelled"):
            self.counts["purged"] += len(gone)
        if state == "dead":
            self._forget_outlived()
        return len(gone)

    def retire(self, message_id: str) -> None:
        """The record of an ended message has been kept long enough."""
        if self.messages.pop(message_id).state == "dead":
            self.outlived.add(message_id)

    def _bury(self, message_id: str, reason: str) -> None:
        message = self.messages[message_id]
        message.state, message.reason = "dead", reason
        self._forget_outlived()

    def _forget_outlived(self) -> None:
        self.counts["forgotten"] += len(self.outlived)
        self.outlived.clear()

    def _cancelled(self, message: Known) -> None:
        message.state = "cancelled"
        self.counts["cancelled"] += 1


SENDS = st.lists(
    st.builds(
        Outgoing,
        id=st.sampled_from(IDS),
        body=st.just(b"1"),
        meta=st.just(NO_META),
        at_ms=st.just(0),
        watch=st.just(""),
        delay_ms=st.sampled_from((0, 0, 0, LATER_MS)),
        ttl_ms=st.sampled_from((0, LATER_MS)),
        unique=st.sampled_from(("", "", *UNIQUE)),
    ),
    min_size=1,
    max_size=4,
)
OUTCOMES = st.sampled_from(
    [
        ("done", Done(b"1")),
        ("retry", RetryIn(0, FAILED)),
        ("retry", RetryIn(LATER_MS, FAILED)),
        ("dead", Dead("failed", FAILED)),
        ("cancelled", Cancelled()),
    ]
)
PICK = st.integers(0, 5)


class Histories(RuleBasedStateMachine):
    """What senders, consumers and people may do to a queue, in any order."""

    receipts: Bundle[Receipt] = Bundle("receipts")

    server: ClassVar[Server]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.past_ms = 0
        self.token = 0
        self.server.wait(self.server.connections.commands.flushall())
        self.seen = self.server.look()

    # Senders

    @initialize(messages=SENDS)
    def send_first(self, messages: list[Outgoing]) -> None:
        self.send(messages)

    @rule(messages=SENDS)
    def send(self, messages: list[Outgoing]) -> None:
        expected = [self.model.send(message) for message in messages]
        assert self.server.wait(self.server.broker.send_many(messages)) == expected

    # Consumers

    @rule(target=receipts, consumer=st.sampled_from(CONSUMERS), room=st.integers(1, 4))
    def claim(self, consumer: str, room: int) -> MultipleResults[Receipt]:
        self.token += 1
        return self._claim(f"8{self.token:015x}", consumer, room)

    @precondition(lambda self: self.model.ledgers)
    @rule(pick=PICK, room=st.integers(1, 4))
    def claim_again(self, pick: int, room: int) -> None:
        consumer = sorted(self.model.ledgers)[pick % len(self.model.ledgers)]
        self._claim(self.model.ledgers[consumer][0], consumer, room)

    @rule(receipt=receipts, settled=OUTCOMES)
    def settle_perhaps_again(self, receipt: Receipt, settled: tuple[str, Outcome]) -> None:
        self._settle(receipt, *settled)

    @precondition(lambda self: self.model.of("active"))
    @rule(pick=PICK, settled=OUTCOMES)
    def settle(self, pick: int, settled: tuple[str, Outcome]) -> None:
        self._settle(self._active(pick), *settled)

    @precondition(lambda self: self.model.of("active"))
    @rule(pick=PICK, settled=OUTCOMES)
    def settle_twice(self, pick: int, settled: tuple[str, Outcome]) -> None:
        receipt = self._active(pick)
        self._settle(receipt, *settled)
        self._settle(receipt, *settled)

    @precondition(lambda self: self.model.of("active"))
    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        self._release([self._active(pick + n) for n in range(len(self.model.of("active")))])

    @rule(some=st.lists(receipts, min_size=1, max_size=3))
    def release_perhaps_again(self, some: list[Receipt]) -> None:
        self._release(some)

    @rule(some=st.lists(receipts, min_size=1, max_size=3), consumer=st.sampled_from(CONSUMERS))
    def renew_perhaps_again(self, some: list[Receipt], consumer: str) -> None:
        expected = [self.model.renew(receipt) for receipt in some]
        assert self.server.wait(self.server.broker.renew(some, consumer)) == expected

    @precondition(lambda self: self._delivered_again())
    @rule(pick=PICK, settled=OUTCOMES)
    def come_too_late(self, pick: int, settled: tuple[str, Outcome]) -> None:
        """Use the receipt of the delivery before the present one in every way."""
        again = self._delivered_again()
        message_id = again[pick % len(again)]
        stale = Receipt(message_id, self.model.messages[message_id].claims[-2])
        assert self.server.wait(self.server.broker.renew([stale], "late")) == [0]
        self._release([stale])
        self._settle(stale, *settled)

    # Time

    @rule()
    def pass_by(self) -> None:
        for state in ("active", "scheduled"):
            for message_id in self.model.of(state):
                self._move_back(state, message_id)

    @precondition(lambda self: self.model.of("active"))
    @rule(pick=PICK)
    def crash(self, pick: int) -> None:
        self._move_back("active", self._active(pick).id)

    @precondition(lambda self: self.model.of("scheduled"))
    @rule(pick=PICK)
    def fall_due(self, pick: int) -> None:
        scheduled = self.model.of("scheduled")
        self._move_back("scheduled", scheduled[pick % len(scheduled)])

    @precondition(lambda self: any(m.can_expire and m.state not in ENDED for m in self.model.messages.values()))
    @rule(pick=PICK)
    def expire(self, pick: int) -> None:
        mortal = [i for i, m in self.model.messages.items() if m.can_expire and m.state not in ENDED]
        message_id = mortal[pick % len(mortal)]
        self.model.messages[message_id].expired = True
        self.server.wait(self.server.connections.commands.hset(self.server.record(message_id), "expires", "1"))

    @precondition(lambda self: any(self.seen.kept.values()))
    @rule(pick=PICK)
    def retire(self, pick: int) -> None:
        kept = [i for i, ends in self.seen.kept.items() if ends]
        message_id = kept[pick % len(kept)]
        self.model.retire(message_id)
        self._move_back("dead", message_id)
        self.server.wait(self.server.connections.commands.delete(self.server.record(message_id)))

    # People

    @rule(message_id=st.sampled_from(IDS))
    def cancel(self, message_id: str) -> None:
        expected = self.model.cancel(message_id)
        assert self.server.wait(self.server.operations.cancel(message_id)) == expected

    @rule(message_id=st.sampled_from(IDS))
    def replay(self, message_id: str) -> None:
        was_dead = message_id in self.model.of("dead")
        expected = self.model.replay(message_id)
        answer = self.server.wait(self.server.operations.replay(message_id))
        assert answer == ("replayed" if was_dead else expected)

    @precondition(lambda self: self.model.of("dead"))
    @rule(pick=PICK, delay_ms=st.sampled_from((0, LATER_MS)))
    def replay_with_a_lost_reply(self, pick: int, delay_ms: int) -> None:
        dead = self.model.of("dead")
        message_id, token = dead[pick % len(dead)], claim_token()
        expected = self.model.replay(message_id, token, later=delay_ms > 0)
        for _ in range(2):
            call = self.server.connections.run(scripts.REPLAY, self.server.key, [token, message_id, delay_ms])
            assert [answer.decode() for answer in self.server.wait(call)] == [expected]

    @rule(limit=st.integers(1, 3), rate=st.sampled_from((0.0, 0.001)))
    def replay_all(self, limit: int, rate: float) -> None:
        listed = list(self.seen.dead)[:limit]
        for n, message_id in enumerate(listed):
            self.model.replay(message_id, later=rate > 0 and n > 0)
        replayed = sum(message_id not in self.model.outlived for message_id in listed)
        assert self.server.wait(self.server.operations.replay_all(limit=limit, rate=rate)) == replayed

    @rule(state=st.sampled_from(("ready", "scheduled", "dead", "done", "cancelled")))
    def purge(self, state: Purgeable) -> None:
        if state == "cancelled" and self.model.tombstones():
            return  # leaves stubs, which the model does not know; a test of its own shows them
        expected = self.model.purge(state)
        assert self.server.wait(self.server.operations.purge(state)) == expected

    @rule()
    def pause(self) -> None:
        self.model.paused = True
        self.server.wait(self.server.operations.pause())

    @precondition(lambda self: self.model.paused)
    @rule()
    def resume(self) -> None:
        self.model.paused = False
        self.server.wait(self.server.operations.resume())

    # What holds after every step

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        self.seen = seen = self.server.look()
        model = self.model
        the_sum_holds(seen)
        assert {i: _of_record(record, seen.leases.get(i)) for i, record in seen.records.items()} == {
            i: (m.state, len(m.claims), m.attempts, m.crashes, m.reason) for i, m in model.messages.items()
        }
        assert seen.line == model.line
        assert set(seen.leases) == set(seen.active)
        for name in ("active", "scheduled"):
            assert set(getattr(seen, name)) == set(model.of(name)), name
        assert set(seen.dead) == {*model.of("dead"), *model.outlived}
        assert {name: seen.info.get(name, 0) for name in model.counts} == model.counts
        assert seen.info.get("tombstones", 0) == len(model.tombstones())
        assert seen.holders == model.holders()
        assert ("paused" in seen.info) == model.paused
        tombstones = model.tombstones()
        assert seen.kept == {i: m.state in ENDED and i not in tombstones for i, m in model.messages.items()}

    # How

    def _claim(self, token: str, consumer: str, room: int) -> MultipleResults[Receipt]:
        expected = self.model.claim(token, consumer, room, self.seen)
        claim = self.server.wait(self.server.broker.claim(token, consumer, room))
        assert [message.receipt for message in claim.messages] == expected
        for message in claim.messages:
            known = self.model.messages[message.receipt.id]
            assert (message.body, message.attempts, message.crashes) == (b"1", known.attempts, known.crashes)
        return multiple(*expected)

    def _settle(self, receipt: Receipt, kind: str, outcome: Outcome) -> None:
        expected = self.model.settle(receipt, kind)
        assert self.server.wait(self.server.broker.settle(receipt, outcome)) == expected

    def _release(self, receipts: Sequence[Receipt]) -> None:
        expected = self.model.release(receipts)
        assert self.server.wait(self.server.broker.release(receipts)) == expected

    def _active(self, pick: int) -> Receipt:
        active = self.model.of("active")
        message_id = active[pick % len(active)]
        return Receipt(message_id, self.model.messages[message_id].claims[-1])

    def _delivered_again(self) -> list[str]:
        return [i for i in self.model.of("active") if len(self.model.messages[i].claims) > 1]

    def _move_back(self, name: str, message_id: str) -> None:
        """Put a time into the past, after all those that are there already."""
        self.past_ms += 1
        scores = {message_id: self.past_ms}
        self.server.wait(self.server.connections.commands.zadd(self.server.part(name), scores, xx=True))


def _of_record(record: dict[str, str], lease: str | None) -> tuple[str, int, int, int, str]:
    _, deliveries, *_ = (lease or record.get("lease") or "- 0").split()
    state = "active" if lease else record.get("state", "ready")
    attempts, crashes = (int(record.get(name, 0)) for name in ("attempts", "crashes"))
    return (state, int(deliveries), attempts, crashes, record.get("reason", ""))


@pytest.fixture
def jobs(url: str) -> Iterator[Server]:
    server = Server(url)
    yield server
    server.close()


@pytest.mark.timeout(600)  # to shrink what it finds
def test_queue_when_anything_happens_in_any_order_then_it_is_as_the_model_and_the_sum_holds(
    jobs: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Histories, "server", jobs, raising=False)
    run_state_machine_as_test(Histories, settings=SETTINGS)


def test_purge_when_cancelled_ones_are_still_on_the_list_then_they_do_not_come_back_as_dead(jobs: Server) -> None:
    jobs.wait(jobs.broker.send_many([Outgoing("a", b"1")]))
    jobs.wait(jobs.operations.cancel("a"))
    jobs.wait(jobs.operations.purge("cancelled"))
    jobs.wait(jobs.broker.claim(claim_token(), "c1", 1))
    seen = jobs.look()
    assert (seen.records, seen.dead, seen.info.get("tombstones", 0)) == ({}, {}, 0)
    the_sum_holds(seen)


def test_purge_when_a_dead_letter_has_gone_by_itself_then_it_counts_as_forgotten(jobs: Server) -> None:
    die(jobs, "a")
    jobs.wait(jobs.connections.commands.delete(jobs.record("a")))
    assert jobs.wait(jobs.operations.purge("dead")) == 0
    the_sum_holds(jobs.look())


def test_dead_letter_when_it_has_gone_and_its_id_dies_again_then_the_first_counts_as_forgotten(jobs: Server) -> None:
    die(jobs, "a")
    jobs.wait(jobs.connections.commands.delete(jobs.record("a")))
    jobs.wait(jobs.connections.commands.zadd(jobs.part("dead"), {"a": 1}))
    die(jobs, "a")
    the_sum_holds(jobs.look())


def test_settle_when_a_retry_of_a_cancelled_message_is_repeated_then_the_answer_is_the_same(jobs: Server) -> None:
    jobs.wait(jobs.broker.send_many([Outgoing("a", b"1")]))
    (claimed,) = jobs.wait(jobs.broker.claim(claim_token(), "c1", 1)).messages
    assert jobs.wait(jobs.operations.cancel("a")) == "cancelling"
    answers = [jobs.wait(jobs.broker.settle(claimed.receipt, RetryIn(0, FAILED))) for _ in range(2)]
    assert answers == [True, True]


def die(jobs: Server, message_id: str) -> None:
    jobs.wait(jobs.broker.send_many([Outgoing(message_id, b"1")]))
    (claimed,) = jobs.wait(jobs.broker.claim(claim_token(), "c1", 1)).messages
    assert jobs.wait(jobs.broker.settle(claimed.receipt, Dead("failed", FAILED)))


def the_sum_holds(seen: Look) -> None:
    info = seen.info
    ready = len(seen.line) - info.get("tombstones", 0)
    present = ready + len(seen.active) + len(seen.scheduled) + len(seen.dead)
    ended = sum(info.get(name, 0) for name in ("done", "cancelled", "purged", "forgotten"))
    assert info.get("sent", 0) == present + ended
