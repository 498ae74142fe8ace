"""What people see of an outage: 202 only for what is kept, 503 else, one line at its start and one at its end."""

import asyncio
import itertools
import json
import threading
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import Any

import pytest

from tests.chaos.ledger import Ledger
from tests.chaos.load import now, post, process, settled
from tests.chaos.matrix import Row
from tests.chaos.proxy import Proxy
from tests.chaos.servers import Valkey
from tests.processes import Served, serving
from tests.waiting import until, wait_for

SENDERS = 4


class Sender:
    """A client that POSTs one message after the other; it counts on those that were answered 202."""

    def __init__(self, url: str, ledger: Ledger, first: int) -> None:
        self._url, self._ledger, self._n = url, ledger, first
        self._stop = threading.Event()
        self.accepted_at: list[float] = []
        self.other: set[int] = set()
        """Any answer but 202, 200 (the id existed) and 503."""
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        while not self._stop.is_set():
            try:
                status = post(f"{self._url}/v1/queues/work/messages?id=n{self._n}", b"%d" % self._n)
            except (OSError, HTTPException) as error:
                raise AssertionError("the service itself must not go") from error
            if status in {200, 202}:
                self.accepted_at.append(now())
                self._ledger.acknowledge(self._n)
                self._n += SENDERS
            elif status != 503:
                self.other.add(status)

    def stop(self) -> None:
        """Stop after the request under way."""
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


async def test_http_when_redis_fails_in_many_ways_then_202_is_kept_and_all_else_is_503(
    valkey: Valkey, proxy: Proxy, ledger: Ledger, row: Callable[..., Row]
) -> None:
    figures = row("POST while connections are cut, swallowed, and Redis is killed: longest wait for a 202", 5.0)
    with serving(proxy.url(), "--app", "tests.chaos.app:service", CHAOS_LEDGER=str(ledger.path)) as served:
        await asyncio.to_thread(served.started)
        senders = [Sender(served.url, ledger, first) for first in range(SENDERS)]

        async def some_more() -> None:
            seen = ledger.acknowledged.total()
            await until(lambda: ledger.acknowledged.total() >= seen + 100, 20)

        await some_more()
        began_at = now()
        for _ in range(10):
            proxy.cut()
            await some_more()
        for fault in (proxy.swallow, proxy.half_close, valkey.kill_clients, valkey.restart):
            await asyncio.to_thread(fault)
            await some_more()
        for sender in senders:
            await asyncio.to_thread(sender.stop)
        await settled(ledger, valkey)
    moments = sorted([began_at, *(at for sender in senders for at in sender.accepted_at if at > began_at)])
    figures.going_again(max(later - earlier for earlier, later in itertools.pairwise(moments)))
    assert not set.union(*(sender.other for sender in senders))
    with valkey.client() as client:
        figures.close(ledger.balance(client))


@pytest.mark.parametrize("query", ["", "?id=chosen"])
def test_http_when_the_reply_to_a_send_is_lost_then_the_client_hears_its_state_all_the_same(
    proxy: Proxy, ledger: Ledger, query: str
) -> None:
    args = ("--app", "tests.chaos.app:service", "--no-consumers")
    with serving(proxy.url(), *args, CHAOS_LEDGER=str(ledger.path)) as served:
        served.started()
        lost = proxy.on("send", "cut reply")
        with closing(HTTPConnection("127.0.0.1", int(served.url.rpartition(":")[2]), timeout=10)) as client:
            client.request("POST", f"/v1/queues/work/messages{query}", b"1")  # it stays open, as most clients leave it
            answer = client.getresponse()
            assert (answer.status, json.load(answer)["state"]) == (202, "ready")
    assert lost.happened


def lines(served: Served, event: str) -> list[dict[str, Any]]:
    """Return the lines of the log that say `event`."""
    logged = [json.loads(line) for line in served.err if line.startswith("{")]
    return [line for line in logged if line["event"] == event]


def free_disk(valkey: Valkey) -> None:
    valkey.free_disk()
    wait_for(lambda: valkey.info("persistence")["aof_last_write_status"] == "ok", 10)


OUTAGES: dict[str, tuple[Callable[[Valkey], None], Callable[[Valkey], None]]] = {
    "killed": (Valkey.kill, Valkey.start),
    "stopped": (Valkey.stop, Valkey.cont),
    "disk full": (Valkey.fill_disk, free_disk),
    "no replica": (lambda valkey: valkey.read_only(True), lambda valkey: valkey.read_only(False)),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_outage_when_it_lasts_a_few_seconds_then_one_line_at_its_start_and_one_at_its_end_with_its_length(
    valkey: Valkey, ledger: Ledger, outage: str
) -> None:
    start, end = OUTAGES[outage]
    with process(valkey.url(), ledger, MQSERVICE_LOG__FORMAT="json", MQSERVICE_QUEUE__LEASE_S="3") as served:
        served.started()
        with valkey.client() as client:
            # One is held meanwhile: its lease is renewed on other connections, in another thread.
            client.rpush(ledger.key, 1, '{"n":3,"ms":60000}')
        wait_for(lambda: ledger.handled_count() == 1)
        start(valkey)
        wait_for(lambda: lines(served, "redis away"), 10)
        away_at = now()
        wait_for(lambda: now() - away_at >= 3.0, 5)  # that is how long the outage is
        end(valkey)
        wait_for(lambda: lines(served, "redis back"), 10)
        with valkey.client() as client:
            client.rpush(ledger.key, 2)
        wait_for(lambda: ledger.handled_count() == 2, 10)
        assert (len(lines(served, "redis away")), len(lines(served, "redis back"))) == (1, 1), "\n".join(served.err)
        assert 2.5 <= lines(served, "redis back")[0]["away_s"] <= 10
