"""A client of event streams over a bare socket, as `curl -N` is one: reads nothing that the test does not ask for."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Event(NamedTuple):
    """One event, as it came."""

    name: str
    data: Any
    id: str


class EventClient:
    """An open stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.comments = 0
        self.retry_ms = 0
        self._text = b""

    async def head(self) -> None:
        """Read status and headers."""
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}

    async def next(self, timeout_s: float = 5.0) -> Event | None:
        """Return the next event; None at the end of the stream. Raises ConnectionError when it was cut off."""
        async with asyncio.timeout(timeout_s):
            while True:
                while b"\n\n" not in self._text:
                    chunk = await self._chunk()
                    if not chunk:
                        return None
                    self._text += chunk
                block, _, self._text = self._text.partition(b"\n\n")
                if event := self._event(block.decode()):
                    return event

    async def take(self, count: int, timeout_s: float = 5.0) -> list[Event]:
        """Return the next events."""
        found = []
        for _ in range(count):
            event = await self.next(timeout_s)
            assert event is not None, f"the stream ended after {found}"
            found.append(event)
        return found

    async def _chunk(self) -> bytes:
        try:
            size = int(await self._reader.readline(), 16)
            return (await self._reader.readexactly(size + 2))[:-2]
        except (ValueError, asyncio.IncompleteReadError) as error:
            raise ConnectionError("cut off") from error

    def _event(self, block: str) -> Event | None:
        fields = dict.fromkeys(("event", "data", "id"), "")
        for line in block.replace("\r", "").split("\n"):
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments += 1
            elif name == "retry":
                self.retry_ms = int(value)
            elif name:
                fields[name] = value
        return Event(fields["event"], json.loads(fields["data"]), fields["id"]) if fields["data"] else None


@asynccontextmanager
async def listening(url: str, path: str, **headers: str) -> AsyncIterator[EventClient]:
    """Open a stream; it is cut off at the end. `Last_Event_ID="1-0"` sends that header."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\n{named}\r\n".encode())
        client = EventClient(reader, writer)
        await client.head()
        yield client
    finally:
        writer.transport.abort()
