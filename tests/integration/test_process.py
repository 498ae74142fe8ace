"""The service as a process: start, the tutorial's pages and scripts, signals, more than one of them."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from tests.processes import fetch, serving
from tests.waiting import wait_for

LISTENER = """
import redis
queue = redis.Redis.from_url({url!r})
print("listening", flush=True)
while True:
    task = queue.blpop("task:prodcons:queue", 0)[1]
    print("Task get", task.decode(), flush=True)
"""


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def tasks(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("Task get ")]


def test_prodcons_when_asked_50_times_by_10_then_50_digits_are_handled(url: str) -> None:
    with serving(url) as served:
        served.started()
        with ThreadPoolExecutor(10) as clients:
            answers = list(clients.map(lambda _: served.get("/prodcons")[0], range(50)))
        assert answers == [302] * 50
        wait_for(lambda: len(tasks(served.out)) == 50)
        assert all(line[9:] in "0123456789" for line in tasks(served.out))


def test_pubsub_when_asked_then_every_process_prints_it(url: str) -> None:
    with serving(url) as one, serving(url) as two:
        one.started()
        two.started()
        assert one.get("/pubsub")[0] == 302
        wait_for(lambda: tasks(one.out) and tasks(two.out))
        assert tasks(one.out) == tasks(two.out)


@pytest.mark.parametrize("path", ["/prodcons", "/pubsub"])
def test_head_and_prefetch_when_sent_then_nothing_is_pushed(url: str, path: str) -> None:
    with serving(url, "--no-consumers") as served, client(url) as redis_client:
        served.started()
        with redis_client.pubsub() as channel:
            channel.subscribe("task:pubsub:channel")
            assert channel.get_message(timeout=5)["type"] == "subscribe"
            assert fetch(served.url + path, "HEAD")[0] == 302
            assert fetch(served.url + path, headers={"Sec-Purpose": "prefetch;prerender"})[0] == 503
            assert redis_client.llen("task:prodcons:queue") == 0
            assert served.get("/pubsub")[0] == 302
            assert channel.get_message(timeout=5)["data"] in set("0123456789")
            assert channel.get_message(timeout=0.1) is None


def test_tutorial_listener_when_our_consumers_are_off_then_gets_our_digits(url: str) -> None:
    with serving(url, "--no-consumers") as served:
        served.started()
        listener = subprocess.Popen([sys.executable, "-c", LISTENER.format(url=url)], stdout=subprocess.PIPE, text=True)
        try:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "listening\n"
            for _ in range(5):
                served.get("/prodcons")
            assert [listener.stdout.readline()[:9] for _ in range(5)] == ["Task get "] * 5
        finally:
            listener.kill()
            listener.communicate()


def test_tutorial_producers_when_they_push_and_publish_then_ours_handle_within_1_5_s(url: str) -> None:
    with serving(url) as served, client(url) as redis_client:
        served.started()
        redis_client.publish("task:pubsub:channel", 3)
        wait_for(lambda: tasks(served.out) == ["Task get 3"], 1.5)
        redis_client.lpush("task:prodcons:queue", 7)
        wait_for(lambda: tasks(served.out) == ["Task get 3", "Task get 7"], 1.5)


def test_index_when_opened_then_links_in_both_languages_and_a_strict_policy(url: str) -> None:
    with serving(url, "--no-consumers") as served:
        status, page = served.started().get("/")
        assert status == 200
        for part in ('href="/prodcons"', 'href="/pubsub"', "生产消费者模式", "发布订阅者模式", "curl "):
            assert part in page
        assert served.get("/static/index.css")[0] == 200
        assert served.get("/readyz") == (200, "ready\n")
        assert served.get("/nowhere")[0] == 404
        assert fetch(served.url + "/prodcons", "POST")[0] == 405


def test_term_when_a_handler_runs_then_not_ready_finishes_exits_0(url: str) -> None:
    with serving(url, "--app", "tests.apps:service") as served, client(url) as redis_client:
        served.started()
        redis_client.rpush("mq:slow", "1.0", "0.1")
        wait_for(lambda: redis_client.llen("started") == 2)
        served.signal(signal.SIGTERM)
        assert served.exit_code() == 0, served.err
        assert redis_client.llen("handled") == 2
        assert redis_client.zcard("{mq:slow}:active") == 0


def test_term_when_sent_twice_then_released_at_once_with_no_attempt_used(url: str) -> None:
    with serving(url, "--app", "tests.apps:service") as served, client(url) as redis_client:
        served.started()
        redis_client.rpush("mq:slow", "60")
        wait_for(lambda: redis_client.llen("started") == 1)
        message_id = redis_client.lindex("started", 0)
        served.signal(signal.SIGINT)
        wait_for(lambda: any("draining" in line for line in served.err))
        began_at = time.monotonic()
        served.signal(signal.SIGINT)
        assert served.exit_code() == 0, served.err
        assert time.monotonic() - began_at < 3
        assert redis_client.lrange("mq:slow", 0, -1) == [f"\0mq:{message_id}"]
        fields = redis_client.hmget(f"{{mq:slow}}:m:{message_id}", "state", "attempts", "crashes")
        assert fields == ["ready", None, None]


def test_term_when_the_grace_is_over_then_released(url: str) -> None:
    with (
        serving(url, "--app", "tests.apps:service", MQSERVICE_SERVICE__DRAIN_S="0.3") as served,
        client(url) as redis_client,
    ):
        served.started()
        redis_client.rpush("mq:slow", "60")
        wait_for(lambda: redis_client.llen("started") == 1)
        served.signal(signal.SIGTERM)
        assert served.exit_code() == 0, served.err
        assert redis_client.llen("mq:slow") == 1


def test_consumer_when_it_dies_then_the_service_stops_with_an_error(url: str) -> None:
    with serving(url, "--app", "tests.apps:broken") as served:
        assert served.exit_code() == 1
        assert any("consumer of work" in line for line in served.err)
        assert any("a fault of our own" in line for line in served.err)


def test_serve_when_queues_are_named_then_only_those_are_consumed(url: str) -> None:
    with (
        serving(url, "--app", "tests.apps:service", "--queues", "work", "--no-http") as served,
        client(url) as redis_client,
    ):
        served.started()
        redis_client.rpush("mq:slow", "0")
        redis_client.rpush("mq:work", "1")
        wait_for(lambda: redis_client.llen("handled") == 1)
        assert redis_client.llen("mq:slow") == 1


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["--queues", "wrok"], 2, "no handler for queue wrok"),
        (["--app", "nowhere:service"], 2, 'no module "nowhere"'),
        (["--app", "tests.apps:note"], 2, "is not a Service"),
        (["--host", "0.0.0.0"], 2, "can be reached from other machines"),
        (["--no-http", "--no-consumers"], 2, "leave nothing to do"),
    ],
)
def test_serve_when_asked_for_nonsense_then_exit_2_and_says_why(
    url: str, args: list[str], code: int, text: str
) -> None:
    with serving(url, *args) as served:
        assert served.exit_code() == code
        assert text in "\n".join(served.err)


def test_serve_when_a_key_is_misspelt_then_exit_2_and_the_nearest_is_named(url: str) -> None:
    with serving(url, MQSERVICE_HTTP__PROT="1") as served:
        assert served.exit_code() == 2
        assert "MQSERVICE_HTTP__PORT" in "\n".join(served.err)


def test_serve_when_redis_does_not_answer_then_exit_3() -> None:
    with serving("redis://localhost:1/0") as served:
        assert served.exit_code() == 3
        assert "no Redis at redis://localhost:1/0" in "\n".join(served.err)


def test_serve_when_the_port_is_taken_by_somebody_else_then_exit_2(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with serving(url, "--port", port) as served:
            assert served.exit_code() == 2
            assert f"http.port = {port}" in "\n".join(served.err)


def test_two_processes_when_on_one_port_then_each_message_is_handled_once_and_the_work_is_shared(
    url: str, record_property: Callable[[str, object], None]
) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        args = ("--app", "tests.apps:service", "--port", port)
        with serving(url, *args) as one, serving(url, *args) as two, client(url) as redis_client:
            one.started()
            two.started()
            with redis_client.pipeline() as pipeline:
                for start in range(0, 10_000, 500):
                    pipeline.rpush("mq:work", *range(start, start + 500))
                    pipeline.rpush("{mq:work}:bell", 1)
                pipeline.execute()
            wait_for(lambda: redis_client.llen("handled") >= 10_000, 60)
            handled = [line.split() for line in redis_client.lrange("handled", 0, -1)]
            assert Counter(int(body) for body, _ in handled) == Counter(range(10_000))
            shares = Counter(pid for _, pid in handled)
            assert set(shares) == {str(one.process.pid), str(two.process.pid)}
            assert min(shares.values()) >= 3_000, shares
            record_property("shares", sorted(shares.values()))


def test_one_of_two_when_killed_then_the_other_answers_on_the_same_port(url: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        with serving(url, "--port", port) as one, serving(url, "--port", port) as two:
            one.started()
            two.started()
            one.signal(signal.SIGKILL)
            one.exit_code()
            assert [two.get("/prodcons")[0] for _ in range(20)] == [302] * 20
            wait_for(lambda: len(tasks(two.out)) + len(tasks(one.out)) == 20)


def test_environment_when_tests_run_then_no_configuration_leaks_in() -> None:
    assert not [name for name in os.environ if name.startswith("MQSERVICE_")]


def test_serve_when_started_with_few_files_then_it_takes_as_many_as_it_may(url: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, soft), hard))
    try:
        with serving(url) as served:
            served.started()
            assert resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)[0] == min(65_536, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
