"""A proxy in front of Redis that does to connections what networks do.

It runs in a thread with a loop of its own, so that a test may block, or block its own loop, without stopping the
network. Requests and replies pass whole: what is cut or dropped is cut or dropped at a known byte.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from tests.chaos.resp import Request, value_end

T = TypeVar("T")
Upstream = Path | tuple[str, int]
"""A unix socket, or host and port."""

Action = Literal["drop reply", "lose reply", "cut reply", "cut request", "duplicate"]
"""What happens to one request:

drop reply   it is executed, its reply never comes, the connection stays open
lose reply   it is executed, and the connection is reset in place of the reply
cut reply    it is executed, half of the reply comes, and the connection is reset
cut request  half of it reaches the server, and the connection is reset
duplicate    the server gets it twice, one right after the other; the client gets the second reply
"""

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends RST."""


@dataclass(eq=False)
class Rule:
    """What happens to the next requests of one name."""

    action: Action
    name: str
    skip: int = 0
    """So many of them pass unharmed first."""
    times: int = 1
    replies: list[bytes] = field(default_factory=list)
    """What the server answered to the requests hit; for `duplicate` both answers."""
    _done: threading.Event = field(default_factory=threading.Event)

    @property
    def happened(self) -> bool:
        """It has hit as often as it should."""
        return self._done.is_set()

    def hits(self, request: Request) -> bool:
        """Return whether this request is one to hit, and count it."""
        if request.name != self.name or self.times == 0:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        if self.times == 0:
            self._done.set()
        return True


@dataclass(eq=False)
class Asked:
    """A request whose reply is due."""

    rule: Rule | None = None
    hidden: bool = False
    """The client gets no reply to this one: it did not send it."""


class Flow:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(
        self,
        proxy: "Proxy",
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client_reader, self._client = client
        self._server_reader, self._server = server
        self._asked: deque[Asked] = deque()
        self._pushed = False
        """Subscribed: what the server sends is no reply to anything."""
        self.swallowed = [False, False]
        """Requests, replies: taken from their sender and passed to nobody."""
        self._cut = False

    async def run(self) -> None:
        """Pass on until either side ends; when swallowed, until both do: neither learns of the other's end."""
        requests, replies = asyncio.ensure_future(self._requests()), asyncio.ensure_future(self._replies())
        pumps = {requests, replies}
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if any(self.swallowed) and not self._cut:
                await asyncio.wait(pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
            for pump in pumps:
                if not pump.cancelled() and (error := pump.exception()) and not isinstance(error, OSError):
                    raise error

    def close(self, *, reset: bool = False) -> None:
        """Close both sides, as the end of a process does, or by a reset."""
        self._cut = True
        for writer in (self._client, self._server):
            if reset and not writer.is_closing():
                with contextlib.suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
            writer.close()

    def half_close(self) -> None:
        """Tell the client that nothing more comes; what it sends is still taken."""
        with contextlib.suppress(OSError, RuntimeError):
            self._client.write_eof()

    async def _requests(self) -> None:
        async for data in _values(self._client_reader):
            if self.swallowed[0]:
                continue
            if not data.startswith(b"*"):
                await self._pass(self._server, data)
                continue
            request = Request.parse(data)
            if request.name in {"subscribe", "psubscribe"}:
                self._pushed = True
            rule = self._proxy.rule_for(request)
            if rule is None:
                self._asked.append(Asked())
                await self._pass(self._server, data)
            else:
                await self._harm(rule, data)

    async def _harm(self, rule: Rule, data: bytes) -> None:
        if rule.action == "cut request":
            await self._pass(self._server, data[: len(data) // 2])
            self.close(reset=True)
            return
        if rule.action == "duplicate":
            self._asked.append(Asked(rule, hidden=True))
            await self._pass(self._server, data)
        self._asked.append(Asked(rule))
        await self._pass(self._server, data)

    async def _replies(self) -> None:
        async for data in _values(self._server_reader):
            asked = self._asked.popleft() if self._asked and not self._pushed else Asked()
            if asked.rule is not None:
                asked.rule.replies.append(data)
                match asked.rule.action:
                    case "drop reply":
                        continue
                    case "lose reply":
                        self.close(reset=True)
                        return
                    case "cut reply":
                        await self._pass(self._client, data[: len(data) // 2])
                        self.close()  # by FIN, so that the first half arrives
                        return
            if not asked.hidden and not self.swallowed[1]:
                await self._pass(self._client, data)

    async def _pass(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self._proxy.delay_s:
            await asyncio.sleep(self._proxy.delay_s)
        step = self._proxy.bytes_per_s // 20 or len(data)
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
            await writer.drain()
            if self._proxy.bytes_per_s:
                await asyncio.sleep(0.05)


class Proxy:
    """Listens on a port of 127.0.0.1 and passes on to `upstream`. Use as a context manager; every method is sync.

    What it does to connections it does to those there are, unless a method says otherwise.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.delay_s = 0.0
        """Each request and each reply takes so much longer."""
        self.bytes_per_s = 0
        """Each direction of each connection carries no more than that; 0: all it can."""
        self.refusing = False
        """New connections are closed at once."""
        self.swallowing = False
        """New connections are swallowed too."""
        self._rules: list[Rule] = []
        self._flows: set[Flow] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener: asyncio.Server | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, db: int = 5) -> str:
        """Return the Redis URL that leads through the proxy."""
        return f"redis://127.0.0.1:{self.port}/{db}"

    @property
    def connections(self) -> int:
        """Connections there are now."""
        return len(self._flows)

    def swallow(self, *, requests: bool = True, replies: bool = True, new: bool = False) -> int:
        """Take bytes and pass none on, with the connections kept open; return how many. `new`: those to come too."""
        self.swallowing = new

        def swallow() -> int:
            for flow in self._flows:
                flow.swallowed = [requests, replies]
            return len(self._flows)

        return self._do(swallow)

    def pass_on(self) -> None:
        """Swallow and refuse no new connection. What was swallowed stays so: its streams have holes."""
        self.swallowing = self.refusing = False

    def cut(self, *, reset: bool = True) -> int:
        """Close all connections on both sides, by RST or by FIN; return how many."""

        def cut() -> int:
            flows = list(self._flows)
            for flow in flows:
                flow.close(reset=reset)
            return len(flows)

        return self._do(cut)

    def half_close(self) -> None:
        """Send FIN to all clients; the server sees nothing."""
        self._do(lambda: [flow.half_close() for flow in self._flows])

    def on(self, name: str, action: Action, *, skip: int = 0, times: int = 1) -> Rule:
        """Do `action` to the next requests of that name (see `Request.name`), after `skip` of them."""
        rule = Rule(action, name, skip, times)
        self._do(lambda: self._rules.append(rule))
        return rule

    def rule_for(self, request: Request) -> Rule | None:
        """Return the rule that hits this request. Called by the flows."""
        return next((rule for rule in self._rules if rule.hits(request)), None)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _do(self, work: Callable[[], T]) -> T:
        async def call() -> T:
            return work()

        return self._call(call())

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 26)
        self.port = self._listener.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._handle(reader, writer))
        self._tasks.add(task)

        def ended(_: object) -> None:  # also one that was cancelled before its first step
            writer.transport.abort()
            self._tasks.discard(task)

        task.add_done_callback(ended)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = None if self.refusing else await self._connect()
        if server is None:
            return
        try:
            await self._serve(Flow(self, (reader, writer), server))
        finally:
            server[1].transport.abort()

    async def _serve(self, flow: Flow) -> None:
        flow.swallowed = [self.swallowing, self.swallowing]
        self._flows.add(flow)
        try:
            await flow.run()
        finally:
            self._flows.discard(flow)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        connecting: Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        if isinstance(self.upstream, Path):
            connecting = asyncio.open_unix_connection(str(self.upstream))
        else:
            connecting = asyncio.open_connection(*self.upstream)
        try:
            return await connecting
        except OSError:
            return None  # nobody listens there: the client learns it by a reset

    async def _close(self) -> None:
        self.refusing = True
        for task in self._tasks:
            task.cancel()
        # A connection that was accepted a moment ago is in a task of asyncio's own, which loses its socket when the
        # listener closes under it (Python 3.11).
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        if self._listener is not None:
            self._listener.close()
        await asyncio.sleep(0)  # one turn of the loop, in which the transports that were aborted end


async def _values(reader: asyncio.StreamReader) -> Any:
    """Yield the complete values of a stream; at its end, whatever is left of one."""
    buffer = bytearray()
    while chunk := await _read(reader):
        buffer += chunk
        start = 0
        while start < len(buffer) and (end := value_end(buffer, start)) is not None:
            yield bytes(buffer[start:end])
            start = end
        del buffer[:start]
    if buffer:
        yield bytes(buffer)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 20)
    except OSError:
        return b""
