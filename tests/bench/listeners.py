"""Clients of server-sent events, in another process: they count a mark. `python -m tests.bench.listeners '{}'`."""

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

import uvloop

from tests.bench.answering import answer

MARK = b"mark-of-the-fan-out"
"""What each published body is; nothing else on a stream contains it."""


class Count:
    """Marks that have come in, over all connections."""

    def __init__(self) -> None:
        self.seen = 0
        self._wanted = 0
        self.reached = asyncio.Event()
        self.reached_at = 0.0

    def want(self, count: int) -> None:
        self.seen, self._wanted = 0, count
        self.reached.clear()

    def add(self, count: int) -> None:
        self.seen += count
        if self.seen >= self._wanted and not self.reached.is_set():
            self.reached_at = time.monotonic()
            self.reached.set()


class Listener(asyncio.Protocol):
    """One stream."""

    def __init__(self, request: bytes, count: Count) -> None:
        self._request, self._count = request, count
        self._tail = b""
        self.opened: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self.opened.set_result(data[:12])
        data = self._tail + data
        self._count.add(data.count(MARK))
        # A mark that was cut in two is counted once it is whole; one that ends here must not be counted again.
        end = data.rfind(MARK)
        self._tail = data[max(len(data) - len(MARK) + 1, end + len(MARK) if end >= 0 else 0) :]

    def connection_lost(self, _: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(RuntimeError("closed before it was open"))


async def main() -> None:
    count, open_ones = Count(), []

    async def listen(url: str, clients: int) -> dict[str, Any]:
        """Open so many streams; the ones before are closed."""
        while open_ones:
            open_ones.pop().transport.close()
        parts = urlsplit(url)
        request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n\r\n".encode()
        loop = asyncio.get_running_loop()
        for _ in range(clients):
            _, listener = await loop.create_connection(lambda: Listener(request, count), parts.hostname, parts.port)
            open_ones.append(listener)
        for listener in open_ones:
            if (status := await asyncio.wait_for(listener.opened, 10)) != b"HTTP/1.1 200":
                raise RuntimeError(f"{url}: {status}")
        return {}

    async def expect(marks: int) -> dict[str, Any]:
        count.want(marks)
        return {}

    async def reached(patience_s: float) -> dict[str, Any]:
        """Wait for them; tell when the last came, and how many there were."""
        try:
            await asyncio.wait_for(count.reached.wait(), patience_s)
        except TimeoutError:
            return {"at": 0.0, "seen": count.seen}
        return {"at": count.reached_at, "seen": count.seen}

    await answer({"listen": listen, "expect": expect, "reached": reached}, {})


if __name__ == "__main__":
    uvloop.run(main())
