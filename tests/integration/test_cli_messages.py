"""`mqservice result`, `get`, `cancel`, `replay`, as processes; their exit codes."""

import json

from tests.commands import ask, lines, mq
from tests.processes import Served


def send(served: Served, queue: str, body: object, query: str = "") -> str:
    message_id: str = ask(served, "POST", f"/v1/queues/{queue}/messages{query}", body)["id"]
    return message_id


def dead(served: Served, message_id: str) -> str:
    return send(served, "emails", {}, f"?id={message_id}&wait=5")


def test_result_when_done_then_it_alone_is_printed(served: Served) -> None:
    message_id = send(served, "echo", {"a": "ü"}, "?wait=5")
    got = mq(served.url, "result", "echo", message_id)
    assert (got.returncode, got.stdout, got.stderr) == (0, '{"a":"ü"}\n', "")
    whole = mq(served.url, "result", "echo", message_id, "--json")
    assert json.loads(whole.stdout)["state"] == "done"


def test_result_when_it_comes_within_the_wait_then_exit_0(served: Served) -> None:
    message_id = send(served, "sleep", 0.5)
    assert mq(served.url, "result", "sleep", message_id).returncode == 5
    got = mq(served.url, "result", "sleep", message_id, "--wait", "10s")
    assert (got.returncode, got.stdout) == (0, "0.5\n")


def test_result_when_dead_then_exit_1_and_the_error_in_a_line(served: Served) -> None:
    dead(served, "dead-1")
    got = mq(served.url, "result", "emails", "dead-1")
    assert (got.returncode, got.stdout) == (1, "")
    assert got.stderr == "Error: message dead-1 of emails is dead (failed): ValueError: nobody to send it to\n"


def test_result_when_unknown_then_exit_4_and_the_problem_in_a_line(served: Served) -> None:
    got = mq(served.url, "result", "echo", "nobody")
    assert (got.returncode, got.stdout) == (4, "")
    assert got.stderr == "Error: queue echo has no message nobody (no-such-message)\n"


def test_get_when_one_is_asked_for_then_all_of_it(served: Served) -> None:
    message_id = send(served, "echo", [1, 2], "?wait=5")
    document = json.loads(mq(served.url, "get", "echo", message_id, "--json").stdout)
    assert (document["state"], document["body"], document["result"]) == ("done", [1, 2], [1, 2])
    table = mq(served.url, "get", "echo", message_id)
    assert table.returncode == 0
    assert message_id in table.stdout
    assert mq(served.url, "get", "echo", "nobody").returncode == 4
    assert mq(served.url, "get", "echo", message_id, "--state", "dead").returncode == 2


def test_get_when_a_state_is_listed_then_over_all_pages(served: Served) -> None:
    ask(served, "POST", "/v1/queues/listed/messages/batch", [{"body": f"[b]{n}[/b]"} for n in range(450)])
    listed = mq(served.url, "get", "listed", "--json", "--limit", "430")
    assert [view["body"] for view in lines(listed)] == [f"[b]{n}[/b]" for n in range(430)]
    table = mq(served.url, "get", "listed", "--limit", "2").stdout
    assert "[b]1[/b]" in table
    assert "[b]2[/b]" not in table


def test_cancel_when_scheduled_active_or_ended_then_said_so(served: Served) -> None:
    scheduled = send(served, "echo", 1, "?delay=1h")
    got = mq(served.url, "cancel", "echo", scheduled)
    assert (got.returncode, got.stdout) == (0, "cancelled\n")
    active = send(served, "sleep", 60, "?wait=0.2")
    got = mq(served.url, "cancel", "sleep", active, "--json")
    assert json.loads(got.stdout) == {"id": active, "state": "cancelling"}
    assert mq(served.url, "result", "sleep", active, "--wait", "5s").returncode == 1
    done = send(served, "echo", 1, "?wait=5")
    got = mq(served.url, "cancel", "echo", done)
    assert (got.returncode, got.stderr) == (1, f"Error: message {done} is done (already-ended)\n")
    assert mq(served.url, "cancel", "echo", "nobody").returncode == 4


def test_replay_when_one_is_named_then_it_is_ready_again(served: Served) -> None:
    dead(served, "dead-2")
    got = mq(served.url, "replay", "emails", "dead-2")
    assert (got.returncode, got.stdout) == (0, "ready\n")
    assert mq(served.url, "result", "emails", "dead-2", "--wait", "5s").returncode == 1
    assert mq(served.url, "replay", "emails", "nobody").returncode == 4


def test_replay_when_all_then_only_those_that_were_chosen(served: Served) -> None:
    ask(served, "DELETE", "/v1/queues/emails/messages?state=dead")
    for number in range(3):
        dead(served, f"dead-all-{number}")
    send(served, "emails", "no object", "?wait=5")
    ask(served, "POST", "/v1/queues/emails/pause")
    try:
        nobody = mq(served.url, "replay", "emails", "--all", "--until", "2001-01-01T00:00:00Z")
        assert nobody.stdout == "0\n"
        some = mq(served.url, "replay", "emails", "--all", "--reason", "failed", "--limit", "2", "--json")
        assert json.loads(some.stdout) == {"replayed": 2}
        rest = mq(served.url, "replay", "emails", "--all", "--rate", "1000", "--since", "2001-01-01T00:00:00Z")
        assert rest.stdout == "2\n"
    finally:
        ask(served, "POST", "/v1/queues/emails/resume")


def test_replay_when_neither_or_both_are_said_then_exit_2_and_nothing_is_replayed(served: Served) -> None:
    for args in ([], ["dead-3", "--all"], ["dead-3", "--limit", "3"], ["--reason", "failed"]):
        assert mq(served.url, "replay", "emails", *args).returncode == 2
    assert mq(served.url, "replay", "emails", "--all", "--since", "yesterday").returncode == 2
