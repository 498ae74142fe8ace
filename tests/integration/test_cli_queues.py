"""`mqservice queues` and `schedules`, as processes."""

import json

from tests.commands import ask, mq
from tests.processes import Served


def test_queues_when_listed_then_a_row_for_each(served: Served) -> None:
    ask(served, "POST", "/v1/queues/unserved/messages", 1)
    document = json.loads(mq(served.url, "queues", "--json").stdout)
    assert document == json.loads(mq(served.url, "queues", "list", "--json").stdout) or document["queues"]
    rows = {line.split()[0]: line for line in mq(served.url, "queues").stdout.splitlines() if line.strip()}
    assert {"echo", "emails", "prodcons", "sleep", "unserved"} <= rows.keys()
    assert "running" in rows["echo"]
    assert "no consumers" in rows["unserved"]


def test_queues_when_paused_then_shown_until_resumed(served: Served) -> None:
    assert mq(served.url, "queues", "pause", "sleep").stdout == "paused\n"
    (row,) = [line for line in mq(served.url, "queues").stdout.splitlines() if line.startswith(" sleep")]
    assert "paused" in row
    answer = mq(served.url, "queues", "resume", "sleep", "--json")
    assert json.loads(answer.stdout) == {"name": "sleep", "paused": False}
    assert mq(served.url, "queues", "pause", "no name").returncode == 2


def test_purge_when_not_agreed_then_says_how_many_and_deletes_nothing(served: Served) -> None:
    ask(served, "POST", "/v1/queues/purged/messages/batch", [{"body": n} for n in range(1200)])
    for answer in ("n\n", "\n", ""):
        purged = mq(served.url, "queues", "purge", "purged", "--state", "ready", stdin=answer)
        assert (purged.returncode, purged.stdout) == (1, "")
        assert "Delete 1,200 ready messages of purged for good? [y/N]" in purged.stderr
    assert ask(served, "GET", "/v1/queues/purged")["counts"]["ready"] == 1200


def test_purge_when_agreed_then_that_state_is_gone(served: Served) -> None:
    for count, args, stdin in ((3, ["--yes"], ""), (2, [], "y\n")):
        ask(served, "POST", "/v1/queues/purged-2/messages/batch", [{"body": n} for n in range(count)])
        purged = mq(served.url, "queues", "purge", "purged-2", "--state", "ready", *args, stdin=stdin)
        assert (purged.returncode, purged.stdout) == (0, f"{count}\n"), purged.stderr
    assert mq(served.url, "queues", "purge", "purged-2", "--yes").returncode == 2
    assert mq(served.url, "queues", "purge", "nobodys", "--state", "dead", "--yes").returncode == 4


def test_schedules_when_put_then_listed_until_deleted(served: Served) -> None:
    put = mq(served.url, "schedules", "put", "s-1", "--queue", "echo", "--every", "30s", '{"a": 1}', "--json")
    view = json.loads(put.stdout)
    assert (view["every"], view["body"], len(view["next"])) == (30, {"a": 1}, 5)
    cron = ("--cron", "30 7 * * *", "--tz", "Asia/Tokyo", "--misfire", "skip", "--overlap", "skip", "--paused")
    assert mq(served.url, "schedules", "put", "s-2", "--queue", "echo", *cron, "text").stdout == "paused\n"
    document = json.loads(mq(served.url, "schedules", "--json").stdout)["schedules"]
    second = next(view for view in document if view["name"] == "s-2")
    assert (second["body"], second["misfire"], second["overlap"], second["paused"]) == ("text", "skip", "skip", True)
    table = mq(served.url, "schedules").stdout
    assert "every 30s" in table
    assert "30 7 * * * Asia/Tokyo" in table
    deleted = mq(served.url, "schedules", "delete", "s-1")
    assert (deleted.returncode, deleted.stdout) == (0, "")
    assert json.loads(mq(served.url, "schedules", "delete", "s-2", "--json").stdout) == {"name": "s-2", "deleted": True}
    assert mq(served.url, "schedules", "delete", "s-1").returncode == 4


def test_schedules_when_put_makes_no_sense_then_exit_2_with_the_reason(served: Served) -> None:
    for args in ([], ["--every", "1m", "--cron", "* * * * *"]):
        assert mq(served.url, "schedules", "put", "s-3", "--queue", "echo", *args).returncode == 2
    wrong = mq(served.url, "schedules", "put", "s-3", "--queue", "echo", "--cron", "every day")
    assert wrong.returncode == 2
    assert "(invalid-schedule)" in wrong.stderr
