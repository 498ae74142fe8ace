"""`mqservice top` and `bench` against a running service."""

import json

from tests.commands import ask, lines, mq
from tests.processes import Served


def test_top_when_json_is_wanted_then_a_line_for_each_look(served: Served) -> None:
    looks = lines(mq(served.url, "top", "--count", "2", "--json"))
    assert len(looks) == 2
    assert {"echo", "sleep"} <= {view["name"] for view in looks[-1]["queues"]}


def test_top_when_it_ends_then_the_last_look_stays(served: Served) -> None:
    done = mq(served.url, "top", "--count", "1")
    assert done.returncode == 0, done.stderr
    assert "prodcons" in done.stdout
    assert "ready 0" in done.stdout


def test_bench_when_run_then_every_message_arrives_and_is_counted(served: Served) -> None:
    before = ask(served, "GET", "/v1/queues/echo")["counts"]["done"]
    done = mq(served.url, "bench", "--count", "300", "--connections", "4", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [(phase["phase"], phase["messages"]) for phase in document["phases"]] == [
        ("send", 300),
        ("batch", 300),
        ("wait", 300),
    ]
    for phase in document["phases"]:
        assert 0 < phase["p50_ms"] <= phase["p95_ms"] <= phase["p99_ms"] <= phase["max_ms"]
        assert phase["per_s"] > 0
    assert ask(served, "GET", "/v1/queues/echo")["counts"]["done"] - before == 900


def test_bench_when_the_time_is_over_then_it_ends(served: Served) -> None:
    done = mq(served.url, "bench", "--phase", "wait", "--seconds", "300ms", "--count", "10000000")
    assert done.returncode == 0, done.stderr
    assert "wait" in done.stdout


def test_bench_when_messages_fail_or_nobody_consumes_then_exit_1_and_says_why(served: Served) -> None:
    failing = mq(served.url, "bench", "--queue", "emails", "--phase", "wait", "--count", "3")
    assert failing.returncode == 1
    assert "is dead (undecodable)" in failing.stderr
    ask(served, "POST", "/v1/queues/lonely/messages", 1)
    lonely = mq(served.url, "bench", "--queue", "lonely")
    assert (lonely.returncode, lonely.stdout) == (1, "")
    assert "has no consumers" in lonely.stderr
    assert mq(served.url, "bench", "--queue", "nobodys").returncode == 4
