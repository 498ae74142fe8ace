"""The test kit: run a service against a private, empty server, drain it, look at the outcomes.

For users' tests, with any test framework; `pytest_plugin` offers it as a fixture. Needs the extra `embedded`. Nothing
of the service is faked: handlers run, are retried and settled as in production.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import msgspec

from mqservice import keys
from mqservice.config import QueueOptions, RedisConfig
from mqservice.connections import Connections
from mqservice.embedded import private_server
from mqservice.handlers import Function
from mqservice.message_view import MessageView
from mqservice.runtime import Parts
from mqservice.service import Sent, Service
from mqservice.views import Views

_LOOK_S = 0.005
"""How often a drain looks whether all is done: a retry ends with no event to wait for."""


@contextlib.asynccontextmanager
async def running(service: Service, *, http: bool = False) -> AsyncIterator["Kit"]:
    """Run `service` against a server of its own until the block ends; yield the kit to work it with.

    The configuration is the service's own, but for the server, a free HTTP port (with `http`) and its schedules,
    none of which fires. It is put back at the end, when handlers that still run are cancelled and the messages are
    gone. Takes about 0.3 s. Raises RuntimeError when the service runs already, MqError when it cannot start.
    """
    async with private_server() as server:
        with _configured(service, server.url(0)):
            await service.start(Parts(http=http))
            connections = Connections(server.url(0))
            try:
                yield Kit(service, connections)
            finally:
                await connections.aclose()
                await service.stop(0.0)


@contextlib.contextmanager
def _configured(service: Service, url: str) -> Iterator[None]:
    before = service._config  # noqa: SLF001 - None, when it has not been read yet, is not what `config` would say
    own = service.config
    service.configure(
        msgspec.structs.replace(
            own,
            redis=RedisConfig(url=url, embedded="never", deadline_s=own.redis.deadline_s, pool=own.redis.pool),
            http=msgspec.structs.replace(own.http, host="127.0.0.1", port=0),
            schedules={},
        )
    )
    try:
        yield
    finally:
        service._config = before  # noqa: SLF001


class Kit:
    """A running service under test; made by `running`."""

    def __init__(self, service: Service, connections: Connections) -> None:
        self.service = service
        self._connections = connections
        self._backend = service._running().backend  # noqa: SLF001 - the kit looks into what it runs
        self._sent: dict[tuple[str, str], int] = {}
        """(queue, id) → its place among what was sent through the kit."""

    @property
    def url(self) -> str:
        """The address of the HTTP listener. Raises RuntimeError when it was not asked for."""
        return self.service.url

    async def send(self, queue: str | Function, body: Any, **options: Any) -> Sent:
        """Send as `Service.send` does, which works as well: to a queue, by name or by its handler."""
        sent = await self.service.send(queue, body, **options)
        self._sent.setdefault((sent.queue, sent.id), len(self._sent))
        return sent

    async def drain(
        self, timeout: float = 10.0, *, ahead: float = 0.0, run_retries: bool = False, run_delayed: bool = False
    ) -> list[MessageView]:
        """Wait until handlers have nothing left to do; return all messages so far, as `outcomes`.

        Nothing left: no message of a queue with a handler is ready, active, or due within `ahead` seconds of now.
        What is scheduled for later stays so, unless `run_retries` makes the retries due at once, `run_delayed` those
        that were sent for later; each as often as there is one, so that a handler that always fails ends as dead.
        Raises TimeoutError, with what is left, after `timeout` seconds.

        Of an at-most-once queue nothing is known but that its messages have been taken.
        """
        # Taken once: a message that puts itself off again and again must not keep a drain going.
        horizon_ms = await self._now_ms() + int(ahead * 1000)
        left: dict[str, dict[str, int]] = {}
        try:
            async with asyncio.timeout(timeout):
                while True:
                    left = await self._left(horizon_ms)
                    # After that look: what was at work then may have asked for a retry since.
                    hastened = (run_retries or run_delayed) and await self._hasten(run_retries, run_delayed)
                    if not left and not hastened:
                        return await self.outcomes()
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise TimeoutError(f"not drained after {timeout:g} s, left are {left}") from None

    async def outcomes(self) -> list[MessageView]:
        """Return all messages of all queues as they are, in the order of sending.

        Within one and the same millisecond: those sent through the kit in their order, then others by their ids.
        Purged messages, and raw bodies that nobody has taken yet, are not among them.
        """
        names = await self._backend.queues()
        views = [view for name in names for view in await self._messages(self._backend.broker(name).queue)]
        last = len(self._sent)
        return sorted(views, key=lambda view: (view.sent_at, self._sent.get((view.queue, view.id), last), view.id))

    async def _left(self, horizon_ms: int) -> dict[str, dict[str, int]]:
        """Return, per queue that is not idle, what keeps it from being. 1 round trip."""
        queues = self._handled()

        async def read() -> list[Any]:
            # One transaction over all queues: a message that moves on meanwhile must not be missed.
            async with self._connections.commands.pipeline(transaction=True) as pipeline:
                pipeline.time()
                for queue in queues:
                    pipeline.llen(queue.key)
                    pipeline.zcard(keys.part(queue.key, "active"))
                    pipeline.zrange(keys.part(queue.key, "scheduled"), 0, -1, withscores=True)
                return await pipeline.execute()

        (seconds, micros), *answers = await self._connections.guard(read)
        horizon_ms = max(horizon_ms, seconds * 1000 + micros // 1000)
        left = {}
        for n, queue in enumerate(queues):
            ready, active, scheduled = answers[3 * n : 3 * n + 3]
            due = sum(due_ms <= horizon_ms for _, due_ms in scheduled)
            if ready or active or due:
                left[queue.name] = {"ready": ready, "active": active, "due": due}
        return left

    async def _hasten(self, retries: bool, delayed: bool) -> bool:
        """Make scheduled messages due now: those that have run before, those that have not, or both; tell if any."""
        hastened = False
        for queue in self._handled():
            views = await self._scheduled(queue)
            ids = [view.id for view in views if (retries if view.deliveries else delayed)]
            if ids:
                await self._make_due(queue.key, ids)
                hastened = True
        return hastened

    async def _scheduled(self, queue: QueueOptions) -> list[MessageView]:
        redis, scheduled = self._connections.commands, keys.part(queue.key, "scheduled")
        ids = cast("list[bytes]", await self._connections.guard(lambda: redis.zrange(scheduled, 0, -1)))
        return await self._views(queue, [message_id.decode() for message_id in ids])

    async def _make_due(self, key: str, ids: list[str]) -> None:
        async def call() -> None:
            async with self._connections.commands.pipeline(transaction=True) as pipeline:
                # XX: what has been claimed since stays where it is.
                pipeline.zadd(keys.part(key, "scheduled"), dict.fromkeys(ids, 1), xx=True)
                pipeline.rpush(keys.part(key, "bell"), b"1")
                await pipeline.execute()

        await self._connections.guard(call)

    async def _messages(self, queue: QueueOptions) -> list[MessageView]:
        redis, prefix = self._connections.commands, keys.record(queue.key, "")

        async def scan() -> set[str]:
            found = [key.decode() async for key in redis.scan_iter(count=1000)]
            return {key.removeprefix(prefix) for key in found if key.startswith(prefix)}

        return await self._views(queue, sorted(await self._connections.guard(scan)))

    async def _views(self, queue: QueueOptions, ids: list[str]) -> list[MessageView]:
        views = await Views(self._connections, queue).messages(ids) if ids else []
        return [view for view in views if view is not None]

    async def _now_ms(self) -> int:
        seconds, micros = await self._connections.guard(self._connections.commands.time)
        return int(seconds) * 1000 + int(micros) // 1000

    def _handled(self) -> list[QueueOptions]:
        return [self._backend.broker(name).queue for name in self.service._registry.handlers]  # noqa: SLF001
