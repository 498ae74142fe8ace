"""SIGKILL of a process that holds leases: another one takes over in time, and nothing is missing."""

import signal
import time
from collections import Counter
from collections.abc import Callable

import redis

from tests.chaos.matrix import Row
from tests.processes import serving
from tests.waiting import wait_for

LEASE_S = 2.0
COUNT = 5_000
SERVE = ("--app", "tests.apps:service", "--no-http")


def counts(client: redis.Redis, queue: str) -> dict[str, int]:
    """Where every message of the queue is; the dead as the list has them."""
    key = f"mq:{queue}"
    info = client.hgetall(f"{{{key}}}:info")
    return {
        "ready": client.llen(key),
        "active": client.zcard(f"{{{key}}}:active"),
        "scheduled": client.zcard(f"{{{key}}}:scheduled"),
        "dead": client.zcard(f"{{{key}}}:dead"),
        "done": int(info.get("done", 0)),
        "sent": int(info.get("sent", 0)),
    }


def test_sigkill_when_in_the_middle_of_5000_then_none_is_missing_and_the_sum_holds(
    url: str, row: Callable[..., Row]
) -> None:
    figures = row("SIGKILL in the middle of 5,000: until all are done", 30.0)
    environ = {"MQSERVICE_QUEUE__LEASE_S": str(LEASE_S)}
    with redis.Redis.from_url(url, decode_responses=True) as client:
        with serving(url, *SERVE, **environ) as heir, serving(url, *SERVE, **environ) as victim:
            heir.started().signal(signal.SIGSTOP)
            victim.started()
            for start in range(0, COUNT, 500):
                client.rpush("mq:work", *range(start, start + 500))
            wait_for(lambda: client.llen("handled") > 500, 30)
            victim.signal(signal.SIGKILL)
            victim.exit_code()
            killed_at = time.monotonic()
            held = client.zcard("{mq:work}:active")
            assert held > 0, "it was in the middle"
            heir.signal(signal.SIGCONT)
            wait_for(lambda: counts(client, "work")["done"] >= COUNT, 60)
            took_s = time.monotonic() - killed_at
        handled = Counter(int(line.split()[0]) for line in client.lrange("handled", 0, -1))
        figures.going_again(took_s)
        figures.sent, figures.lost = COUNT, COUNT - len(handled)
        figures.twice, figures.may_run_twice = sum(count - 1 for count in handled.values()), held
        sums = counts(client, "work")
        figures.sum_holds = sums == {"ready": 0, "active": 0, "scheduled": 0, "dead": 0, "done": COUNT, "sent": COUNT}


def test_sigkill_when_leases_are_held_then_taken_over_within_lease_plus_2_s(url: str) -> None:
    environ = {"MQSERVICE_QUEUE__LEASE_S": str(LEASE_S)}
    with redis.Redis.from_url(url, decode_responses=True) as client:
        # The heir is up before the victim falls, but asleep, so that its start is not what is measured.
        with serving(url, *SERVE, **environ) as heir, serving(url, *SERVE, **environ) as victim:
            heir.started().signal(signal.SIGSTOP)
            victim.started()
            client.rpush("mq:slow", *["1.5"] * 20)
            wait_for(lambda: client.llen("started") == 20)
            victim.signal(signal.SIGKILL)
            heir.signal(signal.SIGCONT)
            wait_for(lambda: client.llen("started") == 40, LEASE_S + 2)
            wait_for(lambda: counts(client, "slow")["done"] == 20)
        assert len(set(client.lrange("handled", 0, -1))) == 20
        assert counts(client, "slow")["sent"] == 20


def test_message_when_it_kills_its_process_three_times_then_dead(url: str, row: Callable[..., Row]) -> None:
    figures = row("a message that kills its process: dead after the third time, lease 1 s", 2.0, may_run_twice=2)
    environ = {"MQSERVICE_QUEUE__LEASE_S": "1"}
    with redis.Redis.from_url(url, decode_responses=True) as client:
        # The survivor is up beforehand, but asleep: its start is not what is measured.
        with serving(url, *SERVE, **environ) as survivor:
            survivor.started().signal(signal.SIGSTOP)
            client.rpush("mq:fatal", "1")
            for crash in range(3):
                with serving(url, *SERVE, **environ) as served:
                    assert served.exit_code(30) == 9, f"crash {crash}: {served.err}"
            crashed_at = time.monotonic()
            survivor.signal(signal.SIGCONT)
            wait_for(lambda: counts(client, "fatal")["dead"] == 1, 10)
            figures.going_again(time.monotonic() - crashed_at)
            assert survivor.process.poll() is None
        (message_id,) = client.zrange("{mq:fatal}:dead", 0, -1)
        assert client.hget(f"{{mq:fatal}}:m:{message_id}", "reason") == "crashed"
        figures.sent, figures.lost, figures.twice = 1, 0, 2
        figures.sum_holds = counts(client, "fatal")["sent"] == 1
