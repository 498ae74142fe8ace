"""A reply lost, cut or late, a request cut or doubled: each script has exactly one effect, as without the fault.

Each scenario runs twice on databases that were equal: behind the fault, repeated until it is answered, and undisturbed.
Afterwards both must hold the same, to the last counter.
"""

import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, get_args

import msgspec
import pytest
import redis
import redis.asyncio

from mqservice import keys, scripts
from mqservice.broker import Broker
from mqservice.channel_history import ChannelHistory
from mqservice.config import ChannelConfig, Config
from mqservice.connections import Connections
from mqservice.embedded import EmbeddedServer
from mqservice.errors import Unavailable
from mqservice.message import Attempt, Cancelled, Claimed, Dead, Done, Outgoing, RetryIn
from mqservice.operations import Operations
from mqservice.results import Waiters
from mqservice.schedule_store import Schedules
from mqservice.schedules import Schedule
from tests.chaos.load import now
from tests.chaos.matrix import Row
from tests.chaos.proxy import Action, Proxy

TOKEN = "8123456789abcdef"
DEADLINE_S = 0.8
FAILED = Attempt(type="ValueError", text="no", at_ms=0, took_ms=0, traceback="", by="test")


@dataclass
class Stage:
    """One database with a queue of six messages: two ready, one raw, three in work; and one that is dead."""

    connections: Connections
    broker: Broker
    operations: Operations
    schedules: Schedules
    held: list[Claimed]


async def prepared(connections: Connections, config: Config) -> Stage:
    """Set the stage."""
    queue = config.queue_options("work", lease_s=60.0)
    broker = Broker(connections, queue)
    await broker.register()
    await connections.load(scripts.ALL)
    await broker.send_many([Outgoing(f"m{n}", b"%d" % n) for n in range(6)])
    held = (await broker.claim("89abcdef01234567", "test", 4)).messages
    await broker.settle(held[0].receipt, Dead("failed", FAILED))
    await connections.commands.rpush(queue.key, b"7")
    schedules = Schedules(connections)
    await schedules.put(Schedule(name="tick", queue="work", every=3600))
    await schedules.put(Schedule(name="tock", queue="work", every=3600))
    return Stage(connections, broker, Operations(connections, queue), schedules, held[1:])


async def claim(stage: Stage) -> int:
    return len((await stage.broker.claim(TOKEN, "test", 10)).messages)


async def push(stage: Stage) -> None:
    with suppress(Unavailable):  # raw bodies have no id: a sender that was told so must not push again
        await stage.broker.push(b"8")


async def publish(stage: Stage) -> int:
    config = Config(channels={"news": ChannelConfig(history=10)})
    publication = await ChannelHistory(stage.connections, config.channel_options("news")).publish(b"1", TOKEN)
    return publication.receivers


async def runs(stage: Stage) -> None:
    with suppress(Unavailable):  # a figure, which is not told again
        await stage.connections.run(scripts.RUNS, stage.broker.queue.key, [3, 1])


async def mark(stage: Stage) -> bool:
    turn = await stage.schedules.take("tick", "test", 60_000)
    assert turn is not None
    return await stage.schedules.mark("tick", turn.stored.rev, 1_900_000_000_000, "skipped")


async def delete(stage: Stage) -> Any:
    gone = msgspec.structs.replace(stage.broker.queue, name="gone", key="mq:gone")
    await Operations(stage.connections, gone).pause()
    return await stage.connections.run(scripts.DELETE, gone.key, [15_000, 1])


async def sweep(stage: Stage) -> Any:
    key = stage.broker.queue.key
    record = keys.record(key, "unlisted")
    await stage.connections.guard(lambda: stage.connections.commands.hset(record, "sent", "1"))
    return await stage.connections.run(scripts.SWEEP, key, [2, "m:unlisted"])


async def watch(stage: Stage) -> Any:
    view = await Waiters(stage.connections, "mq:process:test").wait(stage.broker.queue, "m4", 0.0)
    return view and view.state


SCENARIOS: dict[str, Callable[[Stage], Awaitable[Any]]] = {
    "register": lambda stage: Broker(
        stage.connections, msgspec.structs.replace(stage.broker.queue, name="new")
    ).register(),
    "send": lambda stage: stage.broker.send(Outgoing("new", b"1")),
    "push": push,
    "claim": claim,
    "renew": lambda stage: stage.broker.renew([one.receipt for one in stage.held], "test"),
    "settle done": lambda stage: stage.broker.settle(stage.held[0].receipt, Done(b"1")),
    "settle retry": lambda stage: stage.broker.settle(stage.held[0].receipt, RetryIn(60_000, FAILED)),
    "settle dead": lambda stage: stage.broker.settle(stage.held[0].receipt, Dead("failed", FAILED)),
    "settle cancelled": lambda stage: stage.broker.settle(stage.held[0].receipt, Cancelled()),
    "release": lambda stage: stage.broker.release([one.receipt for one in stage.held]),
    "cancel": lambda stage: stage.operations.cancel("m4"),
    "replay": lambda stage: stage.operations.replay("m0"),
    "purge": lambda stage: stage.operations.purge("ready"),
    "delete": delete,
    "sweep": sweep,
    "look": lambda stage: stage.connections.run(scripts.LOOK, stage.broker.queue.key, [0, 10, 100, 1000]),
    "watch": watch,
    "watch_queue": lambda stage: stage.connections.run(scripts.WATCH_QUEUE, stage.broker.queue.key, [60_000]),
    "publish": publish,
    "report": lambda stage: stage.connections.run(scripts.REPORT, keys.PROCESSES, ["test", b"{}"]),
    "runs": runs,
    "sample": lambda stage: stage.connections.run(scripts.SAMPLE, stage.broker.queue.key, []),
    "progress": lambda stage: stage.broker.progress(stage.held[0].receipt, 0.5, "half"),
    "schedule_put": lambda stage: stage.schedules.put(Schedule(name="new", queue="work", every=60)),
    "schedule_delete": lambda stage: stage.schedules.delete("tock"),
    "schedule_take": lambda stage: stage.schedules.take("tick", "test", 60_000),
    "schedule_mark": mark,
}
"""By the script whose request or reply is hit, the first time it is called."""

TELLS_WHETHER_IT_WAS_FIRST = {
    "register",
    "report",
    "purge",
    "sweep",
    "schedule_put",
    "schedule_delete",
    "schedule_mark",
    "replay",
}
"""Their second answer says that there was nothing left to do."""


async def again(act: Callable[[], Awaitable[Any]]) -> Any:
    """Do it until it is answered, as a caller does who was told Unavailable."""
    while True:
        try:
            return await act()
        except Unavailable:
            continue


def held_by(url: str) -> dict[str, Any]:
    """Return all keys and values of a database; times, random ids and tokens made equal."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        names = [key for key in client.scan_iter(count=1000) if ":rate:" not in key]
        return {neutral(name): (neutral(value_of(client, name)), client.pttl(name) > 0) for name in names}


def value_of(client: redis.Redis, key: str) -> Any:
    match client.type(key):
        case "string":
            return client.get(key)
        case "list":
            return client.lrange(key, 0, -1)
        case "hash":
            return sorted(client.hgetall(key).items())
        case "zset":
            return [member for member, _ in sorted(client.zrange(key, 0, -1, withscores=True))]
        case "stream":
            return client.xrange(key)
        case _:
            return sorted(client.smembers(key))


def neutral(value: Any) -> str:
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}", "<id>", str(value))
    text = re.sub(r"\b[0-9a-f]{16}\b", "<token>", text)
    text = re.sub(r"(?<!\d)(\d{13}|\d{9}|:\d{5})(?!\d)", "<time>", text)
    return re.sub(r"(?<=<time> test )\d+(?=')", "<held>", text)  # the lease of what is done


def test_scenarios_when_a_script_is_added_then_it_has_one() -> None:
    assert {script.name for script in scripts.ALL} == {name.split()[0] for name in SCENARIOS}


@pytest.mark.parametrize("action", get_args(Action))
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_script_when_its_request_or_reply_is_harmed_then_exactly_one_effect(
    server: EmbeddedServer, url: str, config: Config, row: Callable[..., Row], scenario: str, action: Action
) -> None:
    figures = row(f"{action}: each script, repeated", 5.0)
    async with aclosing(Connections(server.url(6))) as undisturbed:
        answer = await SCENARIOS[scenario](await prepared(undisturbed, config))
    with Proxy(server.socket) as proxy:
        async with aclosing(Connections(proxy.url(5), DEADLINE_S)) as behind:
            stage = await prepared(behind, config)
            rule = proxy.on(scenario.split(maxsplit=1)[0], action)
            began_at = now()
            answer_behind = await again(lambda: SCENARIOS[scenario](stage))
            figures.going_again(now() - began_at)
        assert rule.happened
    wanted, got = held_by(server.url(6)), held_by(server.url(5))
    figures.compare(wanted.keys(), got.keys())
    assert got == wanted
    if scenario not in TELLS_WHETHER_IT_WAS_FIRST:
        assert neutral(answer_behind).replace("'=", "'").lstrip("=") == neutral(answer)
    if action == "duplicate" and scenario not in TELLS_WHETHER_IT_WAS_FIRST:
        # A time as a number or as text is the same to us; `=` says that the id existed, a state alone that it is all's.
        first, second = (neutral(reply.decode()).replace("$13\r\n<time>", ":<time>") for reply in rule.replies)
        assert second.removeprefix("*1\r\n").replace("$6\r\n=", "$5\r\n") == first.removeprefix("*1\r\n")


async def test_publish_when_its_reply_never_comes_then_the_deadline_leaves_time_for_a_second_call(
    server: EmbeddedServer, url: str, config: Config
) -> None:
    with Proxy(server.socket) as proxy:
        async with aclosing(Connections(proxy.url(5), deadline_s=2.0)) as behind:
            stage = await prepared(behind, config)
            rule = proxy.on("publish", "drop reply")
            assert await publish(stage) == 0
        assert rule.happened
