"""Metrics of real processes: what one leaves behind that is killed, and what the log says of a second."""

import json
import urllib.request

import pytest

from tests.processes import Served, serving
from tests.scraping import Scraped
from tests.waiting import wait_for

COUNTERS = (
    "mqservice_messages_sent_total",
    "mqservice_messages_done_total",
    "mqservice_handler_run_seconds_count",
    "mqservice_message_wait_seconds_count",
    "mqservice_http_requests_total",
)


def scrape(served: Served, scope: str) -> Scraped:
    return Scraped(served.get(f"/metrics?scope={scope}")[1], "text/plain")


def send(served: Served, count: int) -> None:
    items = json.dumps([{"body": 1}] * count).encode()
    request = urllib.request.Request(f"{served.url}/v1/queues/echo/messages/batch", items, method="POST")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 202


def traffic(served: Served) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in served.err if line.startswith("{")]
    return [line for line in lines if line["event"] == "traffic"]


def test_metrics_of_all_when_a_process_is_killed_then_no_counter_goes_back(url: str) -> None:
    with serving(url) as one, serving(url) as two:
        one.started()
        two.started()
        send(one, 300)
        send(two, 200)

        def all_told() -> bool:
            whole = scrape(one, "all")
            ran = whole("mqservice_handler_run_seconds_count") == whole("mqservice_message_wait_seconds_count") == 500
            return ran and whole("mqservice_http_requests_total", code="202") == 2

        wait_for(all_told, 10)
        both = [scrape(served, "process") for served in (one, two)]
        whole = scrape(two, "all")
        for name in COUNTERS[:4]:
            assert whole(name, queue="echo") == sum(its(name, queue="echo") or 0 for its in both) == 500, name
        assert whole("mqservice_processes") == 2
        two.process.kill()
        two.exit_code()
        after = scrape(one, "all")
        for name in COUNTERS:
            assert (after(name) or 0) >= (whole(name) or 0), name
        wait_for(lambda: scrape(one, "all")("mqservice_processes") == 1, 15)
        after = scrape(one, "all")
        for name in COUNTERS:
            assert (after(name) or 0) >= (whole(name) or 0), name


@pytest.mark.parametrize(("level", "lines"), [("info", True), ("warning", False)])
def test_log_when_there_is_traffic_then_a_line_a_second_says_what_and_none_when_idle(
    url: str, level: str, lines: bool
) -> None:
    with serving(url, MQSERVICE_LOG__FORMAT="json", MQSERVICE_LOG__LEVEL=level) as served:
        served.started()
        ticks(served, 2)
        assert traffic(served) == []  # probes and scrapes are no traffic
        send(served, 50)
        if lines:
            wait_for(lambda: sum(int(str(line.get("handled", 0))) for line in traffic(served)) == 50)
        ticks(served, 2)
        seen = traffic(served)
    assert len(seen) in ((1, 2) if lines else (0,))
    if lines:
        assert total(seen, "requests") == 1
        assert total(seen, "sent") == total(seen, "handled") == 50
        assert "request_p95_ms" in seen[0]
        assert not {"refused", "errors", "failed", "dead"} & seen[0].keys()


def total(lines: list[dict[str, object]], field: str) -> int:
    return sum(int(str(line.get(field, 0))) for line in lines)


def ticks(served: Served, count: int) -> None:
    """Wait until the process has reported so often: once a second, as it sums up."""
    seen: set[float | None] = set()

    def enough() -> bool:
        seen.add(scrape(served, "all")("process_cpu_seconds_total"))
        return len(seen) > count

    wait_for(enough, 10)
