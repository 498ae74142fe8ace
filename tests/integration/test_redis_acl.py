"""A Redis user of our own: which rights it needs, and what is said when it lacks one."""

import json
import time
import urllib.request
from collections.abc import Iterator

import pytest
import redis

from tests.processes import Served, fetch, serving
from tests.waiting import wait_for

KEYS = ["~mq:*", "~{mq*", "~task:prodcons:queue", "~{task:prodcons:queue}:*"]
CHANNELS = ["&mq:*", "&task:pubsub:channel"]
COMMANDS = [
    *("-@all", "+@read", "+@write", "+@pubsub", "+@connection", "-@dangerous"),
    *("+eval", "+evalsha", "+script|load", "+time", "+info"),
]
"""What the README says. Every queue or channel that has a key of its own needs that too."""


@pytest.fixture
def admin(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        yield client
        client.acl_deluser("mq")


def user(admin: redis.Redis, *rules: str, url: str) -> str:
    """Make the user anew; return its URL."""
    admin.acl_deluser("mq")
    admin.execute_command("ACL", "SETUSER", "mq", "on", ">pw", "resetchannels", *rules)
    admin.execute_command("ACL", "LOG", "RESET")
    return url.replace("unix://", "unix://mq:pw@")


def ask(served: Served, method: str, path: str, body: object = None) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(served.url + path, data, method=method)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_service_when_its_user_has_the_documented_rights_then_nothing_is_refused(admin: redis.Redis, url: str) -> None:
    mine = user(admin, *KEYS, *CHANNELS, *COMMANDS, url=url)
    with serving(mine) as served:
        served.started()
        queue = "/v1/queues/echo"
        assert fetch(served.url + "/prodcons")[0] == 302
        assert fetch(served.url + "/pubsub")[0] == 302
        for method, path, body, expected in (
            ("POST", f"{queue}/messages?wait=5", 1, 200),
            ("POST", f"{queue}/messages/batch", [{"body": 1}, {"body": 2, "delay": 60, "id": "late"}], 202),
            ("POST", "/v1/queues/sleep/messages?id=bad&attempts=1", "no number", 202),
            ("GET", f"{queue}/messages?state=scheduled", None, 200),
            ("GET", f"{queue}/messages/late", None, 200),
            ("DELETE", f"{queue}/messages/late", None, 200),
            ("GET", "/v1/queues/sleep/messages/bad?wait=5", None, 200),
            ("POST", "/v1/queues/sleep/messages/bad/replay", None, 202),
            ("GET", "/v1/queues/sleep/messages/bad?wait=5", None, 200),
            ("POST", "/v1/queues/sleep/replay", None, 202),
            ("POST", f"{queue}/pause", None, 200),
            ("POST", f"{queue}/messages", 3, 202),
            ("DELETE", f"{queue}/messages?state=ready", None, 200),
            ("POST", f"{queue}/resume", None, 200),
            ("POST", "/v1/queues/gone/messages", 4, 202),
            ("PUT", "/v1/schedules/tick", {"queue": "echo", "every": 1}, 201),
            ("GET", "/v1/schedules", None, 200),
            ("DELETE", "/v1/queues/gone", None, 200),
            ("GET", "/v1/queues", None, 200),
            ("GET", "/v1/stats", None, 200),
            ("GET", "/v1/queues/echo/stats", None, 200),
            ("GET", "/v1/processes", None, 200),
            ("GET", "/v1/events?limit=1", None, 200),
            ("GET", "/metrics", None, 200),
            ("GET", "/metrics?scope=all", None, 200),
        ):
            got = ask(served, method, path, body)
            assert got[0] == expected, (method, path, got)
        wait_for(lambda: json.loads(ask(served, "GET", "/v1/schedules/tick")[1])["last_at"], 5)
        wait_for(lambda: len([line for line in served.out if line.startswith("Task get ")]) == 2)
        assert ask(served, "DELETE", "/v1/schedules/tick")[0] == 204
        assert admin.execute_command("ACL", "LOG") == []
        served.process.terminate()
        assert served.exit_code() == 0
        assert [line for line in served.err if '"error"' in line] == []


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([*KEYS, *COMMANDS], "No permissions to access a channel"),
        ([*CHANNELS, *COMMANDS], "No permissions to access a key"),
        ([*KEYS, *CHANNELS, *COMMANDS, "-script|load"], "no permissions to run the 'script|load' command"),
        ([*KEYS, *CHANNELS, *COMMANDS, "-info"], "no permissions to run the 'info' command"),
        (
            [*KEYS, *CHANNELS, *COMMANDS, "resetpass", ">other"],
            "Redis refuses us: invalid username-password pair or user is disabled",
        ),
        ([*KEYS, *CHANNELS, *COMMANDS, "off"], "Redis refuses us: invalid username-password pair or user is disabled"),
    ],
)
def test_service_when_its_user_lacks_a_right_then_the_start_fails_at_once_and_says_which(
    admin: redis.Redis, url: str, rules: list[str], says: str
) -> None:
    mine = user(admin, *rules, url=url)
    started = time.monotonic()
    with serving(mine) as served:
        assert served.exit_code() in (1, 2, 3)
        said = "\n".join(served.err)
    assert time.monotonic() - started < 9
    assert says in said
    assert "Traceback" not in said
    assert ":pw@" not in said


def test_service_when_a_right_is_taken_away_then_503_and_the_log_say_so_until_it_is_back(
    admin: redis.Redis, url: str
) -> None:
    mine = user(admin, *KEYS, *CHANNELS, *COMMANDS, url=url)
    with serving(mine, MQSERVICE_LOG__FORMAT="json") as served:
        served.started()
        admin.execute_command("ACL", "SETUSER", "mq", "-hset")
        status, body = ask(served, "POST", "/v1/queues/echo/messages", 1)
        assert (status, json.loads(body)["type"]) == (503, "/problems/misconfigured")
        assert "'hset'" in body
        admin.execute_command("ACL", "SETUSER", "mq", "+hset", "-evalsha")
        wait_for(lambda: any("queue out of order" in line and "'evalsha'" in line for line in served.err), 10)
        admin.execute_command("ACL", "SETUSER", "mq", "+evalsha")
        wait_for(lambda: ask(served, "POST", "/v1/queues/echo/messages?wait=2", 1)[0] == 200, 15)
        assert not any("Traceback" in line for line in served.err)
