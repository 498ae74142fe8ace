"""Senders and consumers for the chaos tests: ours, through whatever stands between them and Redis."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from mqservice import Service
from mqservice.config import Config, HttpConfig, QueueConfig, RedisConfig
from mqservice.errors import Unavailable
from mqservice.runtime import Parts
from tests.chaos.app import make
from tests.chaos.ledger import Ledger, number
from tests.chaos.servers import Valkey
from tests.processes import Served, serving
from tests.waiting import until

APP = ("--app", "tests.chaos.app:service", "--no-http")


@asynccontextmanager
async def ours(
    url: str,
    ledger: Ledger,
    *,
    consumers: bool = True,
    subscriber: Callable[[int], object] | None = None,
    **queue: Any,
) -> AsyncIterator[Service]:
    """Run our service in this process, with every default but what `queue` says."""
    config = Config(redis=RedisConfig(url=url, embedded="never"), http=HttpConfig(port=0), queue=QueueConfig(**queue))
    service = make(ledger.path, config, subscriber)
    await service.start(Parts(http=False, consumers=consumers))
    try:
        yield service
    finally:
        await service.stop()


def process(url: str, ledger: Ledger, **environ: str) -> AbstractContextManager[Served]:
    """Run our service as a process, with every default but what `environ` says."""
    return serving(url, *APP, CHAOS_LEDGER=str(ledger.path), **environ)


async def send(service: Service, ledger: Ledger, n: int, delay: float = 0.0, **fields: Any) -> None:
    """Send message `n` until it is acknowledged, always with the same id, as the README says. `fields`: see Work."""
    while True:
        try:
            await service.send("work", {"n": n, **fields}, id=f"n{n}", delay=delay)
        except Unavailable:
            await asyncio.sleep(0.05)
        else:
            ledger.acknowledge(n)
            return


def post(url: str, body: bytes) -> int:
    """POST over HTTP; return the status. Raises what http.client raises when the other side dies."""
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=10)
    try:
        connection.request("POST", f"{address.path}?{address.query}", body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


@asynccontextmanager
async def sending(
    service: Service, ledger: Ledger, *, every_s: float = 0.01, start: int = 0, **fields: Any
) -> AsyncIterator[None]:
    """Send a message every so often, each in a task of its own, as long as the block lasts; then await them all."""
    numbers = iter(range(start, 1 << 62))
    tasks: set[asyncio.Task[None]] = set()

    async def go_on() -> None:
        while True:
            tasks.add(asyncio.create_task(send(service, ledger, next(numbers), **fields), name="send"))
            await asyncio.sleep(every_s)

    going = asyncio.create_task(go_on(), name="sending")
    try:
        yield
    finally:
        going.cancel()
        await asyncio.wait([going])
        await asyncio.wait_for(asyncio.gather(*tasks), 30)


async def handled(ledger: Ledger, n: int, since: float, timeout_s: float = 60.0) -> float:
    """Wait until message `n` has been handled; return how many seconds after `since`, by the monotonic clock."""
    moment: list[float] = []

    def found() -> bool:
        moment[:] = [note.at for note in ledger.notes() if note.n == n and note.verb == "end"][:1]
        return bool(moment)

    await until(found, timeout_s)
    return moment[0] - since


async def started_after(ledger: Ledger, since: float, timeout_s: float = 60.0) -> float:
    """Wait for the first run that begins after `since`, so that it was claimed after it; return how much later."""
    moment: list[float] = []

    def found() -> bool:
        moment[:] = sorted(note.at for note in ledger.notes() if note.at > since and note.verb == "start")[:1]
        return bool(moment)

    await until(found, timeout_s)
    return moment[0] - since


async def settled(ledger: Ledger, valkey: Valkey, timeout_s: float = 60.0) -> None:
    """Wait until nothing is ready, active or scheduled any more."""

    def empty() -> bool:
        with valkey.client() as client:
            counts = ledger.counts(client)
        return not (counts["ready"] or counts["active"] or counts["scheduled"])

    await until(empty, timeout_s)


def held_by(valkey: Valkey, ledger: Ledger, pid: int | None = None) -> set[int]:
    """Return the numbers of the messages whose lease a process holds; of all processes when `pid` is None."""
    with valkey.client() as client:
        leases = client.hgetall(f"{{{ledger.key}}}:leases")
        ids = [i for i, lease in leases.items() if pid is None or f"-{pid}-" in lease.split(" ")[-1]]
        with client.pipeline(transaction=False) as pipeline:
            for message_id in ids:
                pipeline.hget(f"{{{ledger.key}}}:m:{message_id}", "body")
            return {number(body) for body in pipeline.execute() if body}


def now() -> float:
    """The monotonic clock, as in the ledger."""
    return time.monotonic()
