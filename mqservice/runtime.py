"""The parts of one running service, wired: start order, watch, stop order.

Made by `Service.start`. Whatever must not end is a named task that is watched; when one ends, the service stops with
its error: never an HTTP server with a dead worker behind it.
"""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import structlog

from mqservice import scripts
from mqservice.backend import Backend
from mqservice.broker import Broker
from mqservice.config import Config, all_tokens, redacted
from mqservice.connections import Connections, open_redis
from mqservice.consumer import Consumer, Execute
from mqservice.embedded import EmbeddedServer
from mqservice.errors import EmbeddedError, MqError, NoSuchQueue, Unavailable
from mqservice.executor import Execution
from mqservice.following import follow
from mqservice.handlers import Handler, Registry
from mqservice.history import History
from mqservice.idempotency import Idempotency
from mqservice.lag import LoopLag
from mqservice.leases import Renewal
from mqservice.log import stand_aside
from mqservice.metrics import Metrics
from mqservice.popper import Popper
from mqservice.processes import Processes
from mqservice.reports import Reporter, Subject
from mqservice.scheduler import Scheduler
from mqservice.session_key import session_key
from mqservice.sidecar import Sidecar
from mqservice.subscriber import Subscriber
from mqservice.summary import Summary
from mqservice.tally import Tally
from mqservice.tracing import wants_spans
from mqservice.watchdog import READY_S, Watchdog
from mqservice.web.context import Context
from mqservice.web.server import Server

log = structlog.get_logger()

_SETTLE_S = 5.0
"""How long a drain waits for Redis to take the last outcomes, once no handler runs any more."""

_LIVE_S = 10.0
"""How long Redis may take to confirm the subscriptions at start."""

_LOOK_S = 1.0
"""How often we look whether our own server still runs."""

_THREADS = 32
"""Plain `def` handlers that run at the same time."""


@dataclass(frozen=True)
class Parts:
    """Which parts of the service this process runs."""

    http: bool = True
    consumers: bool = True
    queues: frozenset[str] | None = None
    """Only these queues are consumed; None: all that have a handler."""
    summary: bool = False
    """The log tells once a second what went on: for a process that does nothing else."""


class Runtime:
    """Everything between start and stop of one process."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        parts: Parts,
        connections: Connections,
        embedded: EmbeddedServer | None,
    ) -> None:
        self._config, self._registry, self._parts = config, registry, parts
        self._embedded = embedded
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.tally = Tally()
        make, self._execute = _traced() if wants_spans() else (Broker, _plainly)
        self.backend = Backend(connections, config, registry, self.name, self.tally, make)
        self.lag = LoopLag(self._at_work)
        self.server: Server | None = None
        self.watchdog: Watchdog | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="handler")
        self._consumers: list[Consumer | Popper] = []
        self._subscribers: list[Subscriber] = []
        self._scheduler: Scheduler | None = None
        self._sidecar: Sidecar | None = None
        self._reporter = self._new_reporter()
        self._draining: set[asyncio.Task[None]] = set()
        """The watched tasks that end by themselves after `stop()`."""
        self._watched: dict[asyncio.Task[None], str] = {}
        self._redis_text = ""
        self._ready = False

    @classmethod
    async def start(cls, config: Config, registry: Registry, parts: Parts) -> Self:
        """Bring everything up in order, HTTP last. On any error nothing is left behind."""
        stand_aside()
        url, embedded = await open_redis(config.redis)
        connections = Connections(url, config.redis.deadline_s, config.redis.pool)
        runtime = cls(config, registry, parts, connections, embedded)
        try:
            runtime._watch(runtime.lag.beat(), "lag")
            await runtime._start_redis()
            await runtime._start_subscription()
            runtime._start_reports()
            if parts.consumers:
                await runtime._start_consumers()
            runtime._start_scheduler()
            if parts.http:
                await runtime._start_http()
        except BaseException:
            await runtime.stop(0.0, None)
            raise
        runtime._ready = True
        return runtime

    async def wait_failed(self) -> None:
        """Wait until a watched task ends, then raise why. Waits for ever when there is none."""
        if not self._watched:
            await asyncio.Event().wait()
        done, _ = await asyncio.wait(self._watched, return_when=asyncio.FIRST_COMPLETED)
        self._ready = False
        task = done.pop()
        raise MqError(f"{self._watched[task]} ended, and must not") from task.exception()

    def describe(self) -> dict[str, str]:
        """Return what the start screen says."""
        return {
            "url": self.server.url if self.server else "",
            "redis": self._redis_text,
            "queues": ", ".join(self._consumed()),
            "channels": ", ".join(s.handler.name for s in self._subscribers),
        }

    async def stop(self, grace_s: float, hurry: asyncio.Event | None) -> None:
        """Take everything down, in this order; nothing here raises because Redis is away."""
        self._ready = False  # 1. /readyz says 503, so that balancers turn away
        if self.server is not None:
            await self.server.close_port()  # 2. no new connection
        for part in (self._scheduler, *self._consumers, *self._subscribers):
            if part is not None:
                part.stop()  # 3. nothing new is claimed or fired
        await self._wait_for_handlers(grace_s, hurry)  # 4. what runs may finish
        for consumer in self._consumers:  # 5. what still runs is cancelled and given back
            with contextlib.suppress(MqError, TimeoutError):
                async with asyncio.timeout(_SETTLE_S):
                    await consumer.abandon()
        await self._wait_for_handlers(_SETTLE_S, None)  # 6. the last outcomes reach Redis
        if self._sidecar is not None:
            await self._sidecar.stop()
        await self._end_tasks()
        if self.server is not None:
            await self.server.aclose()  # 7. answers under way are finished
        await self.backend.aclose(_SETTLE_S)  # 8. sends under way are finished, connections closed
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._embedded is not None:
            self._embedded.leave()  # 9. our own server ends when its last user has gone

    async def _start_redis(self) -> None:
        connections = self.backend.connections
        if self._embedded is not None:
            self._watch(_keep_alive(self._embedded), "private server")
        await connections.load(scripts.ALL)
        version = await connections.version()
        where = redacted(connections.url)
        if self._embedded is not None:
            where = f"our own, data kept in {self._embedded.directory}"
        self._redis_text = f"{version}, {where}"

    async def _start_subscription(self) -> None:
        by_key: dict[str, list[Subscriber]] = {}
        for handler in self._registry.subscribers if self._parts.consumers else ():
            subscriber = Subscriber(handler)
            self._subscribers.append(subscriber)
            by_key.setdefault(self.backend.channel(handler.name).key, []).append(subscriber)
            self._draining.add(self._watch(subscriber.run(), f"subscriber {handler.name}"))
        backend = self.backend
        subscription = follow(
            backend.connections,
            self.name,
            by_key,
            backend.fanout,
            backend.queue_streams,
            backend.waiters.notify,
            self._cancel,
        )
        following = self._watch(subscription.run(), "subscription")
        self._watch(backend.fanout.run(), "channel streams")
        self._watch(backend.queue_streams.run(), "queue streams")
        live = asyncio.create_task(subscription.live.wait(), name="subscription live")
        await asyncio.wait({live, following}, timeout=_LIVE_S, return_when=asyncio.FIRST_COMPLETED)
        if not live.done():
            live.cancel()
            if following.done():
                del self._watched[following]  # its error is told by who asked for the start
                following.result()
            raise Unavailable(f"Redis did not confirm the subscriptions within {_LIVE_S:g} s")

    def _at_work(self, task: asyncio.Task[Any] | None) -> dict[str, str]:
        for consumer in self._consumers:
            if isinstance(consumer, Consumer) and (message_id := consumer.at_work(task)) is not None:
                return {"queue": consumer.queue.name, "id": message_id}
        return {}

    def _consumed(self) -> list[str]:
        return [consumer.name.rsplit("/", 1)[1] for consumer in self._consumers]

    def _silent_s(self) -> dict[str, float]:
        return {consumer.name.rsplit("/", 1)[1]: consumer.silent_s for consumer in self._consumers}

    def _cancel(self, list_key: str, message_id: str) -> None:
        for consumer in self._consumers:
            if isinstance(consumer, Consumer) and consumer.queue.key == list_key:
                consumer.cancel(message_id)

    async def _start_consumers(self) -> None:
        handlers = self._registry.handlers
        wanted = self._parts.queues if self._parts.queues is not None else frozenset(handlers)
        if unknown := wanted - handlers.keys():
            raise NoSuchQueue(f"no handler for queue {', '.join(sorted(unknown))}; there are: {', '.join(handlers)}")
        for name in sorted(wanted):
            await self._start_consumer(handlers[name])
        consumers = [consumer for consumer in self._consumers if isinstance(consumer, Consumer)]
        connections = self.backend.connections
        renewal = Renewal(consumers, asyncio.get_running_loop(), connections.again, lambda: self.lag.stuck_s)
        self._sidecar = Sidecar([renewal.run, self.lag.watch])
        self._sidecar.start()
        self.watchdog = Watchdog(self._consumers, connections)
        self._watch(self.watchdog.run(), "watchdog")

    async def _start_consumer(self, handler: Handler) -> None:
        broker = self.backend.broker(handler.name)
        await broker.register()
        name = f"{self.name}/{handler.name}"
        execution = Execution(handler, broker.queue, self.name, self._threads, broker.progress)
        once = broker.queue.delivery == "at-most-once"
        self._reporter.tell_runs(broker.queue)
        tally = self.tally.queue(handler.name, consumed=True)
        consumer = (
            Popper(broker, self._execute(execution), name, tally)
            if once
            else Consumer(broker, self._execute(execution), name, execution.failed, tally)
        )
        self._consumers.append(consumer)
        self._draining.add(self._watch(consumer.run(), f"consumer of {handler.name}"))

    def _start_reports(self) -> None:
        self._watch(self._reporter.run(), "reports")
        if self._parts.summary:
            self._watch(Summary(self.tally).run(), "summary")

    def _new_reporter(self) -> Reporter:
        backend = self.backend
        subject = Subject(
            name=self.name,
            consumed=self._consumed,
            known=backend.known_queues,
            held=lambda: sum(consumer.held for consumer in self._consumers),
            streams=lambda: len(self.server.streams) if self.server else 0,
            published_per_s=backend.channels.per_s,
            keeps_records=lambda queue: backend.broker(queue).queue.delivery != "at-most-once",
            silent_s=self._silent_s,
        )
        return Reporter(backend.connections, subject, lambda: self.lag.worst_ms, self.tally)

    def _start_scheduler(self) -> None:
        self._scheduler = Scheduler(
            self.backend.schedules,
            self.backend.send_scheduled,
            lambda queue: self.backend.broker(queue).queue,
            tuple(self._config.schedules.values()),
            self._config.service.app,
        )
        self._draining.add(self._watch(self._scheduler.run(), "scheduler"))

    async def _start_http(self) -> None:
        tokens = all_tokens(self._config.auth)
        backend = self.backend
        connections = backend.connections
        context = Context(
            broker=backend.broker,
            views=backend.views,
            operations=backend.operations,
            queues=backend.queues,
            waiters=backend.waiters,
            idempotency=Idempotency(connections),
            schedules=backend.schedules,
            processes=Processes(connections),
            history=History(connections),
            numbers=backend.numbers,
            metrics=Metrics(connections, self._reporter, backend.known_queues),
            tally=self.tally,
            publish=backend.channels.publish,
            fanout=backend.fanout,
            queue_streams=backend.queue_streams,
            not_ready=self._not_ready,
            is_alive=self._is_alive,
            session_key=await session_key(connections) if tokens else b"",
        )
        self.server = Server(context, self._config.http, tokens)
        await self.server.start()

    def _not_ready(self) -> str:
        """Return why this process should get no traffic, or nothing."""
        if not self._ready:
            return "starting, draining or failed"
        if self.watchdog is not None and self.watchdog.silent_s > READY_S:
            return self.watchdog.fault or f"no answer to its consumers for {self.watchdog.silent_s:.0f} s"
        return ""

    async def _is_alive(self) -> bool:
        return self.watchdog is None or await self.watchdog.is_alive()

    def _watch(self, run: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(run, name=name)
        self._watched[task] = name
        return task

    async def _wait_for_handlers(self, grace_s: float, hurry: asyncio.Event | None) -> None:
        working = {task for task in self._draining if not task.done()}
        if not working:
            return
        drained = asyncio.create_task(asyncio.wait(working), name="drain")
        hurried = asyncio.create_task(hurry.wait() if hurry else asyncio.Event().wait(), name="hurry")
        try:
            await asyncio.wait({drained, hurried}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            drained.cancel()
            hurried.cancel()

    async def _end_tasks(self) -> None:
        for task, name in self._watched.items():
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("part failed", part=name, error=repr(error), exc_info=error)


def _plainly(execution: Execution) -> Execute:
    return execution.run


def _traced() -> tuple[type[Broker], Callable[[Execution], Execute]]:
    from mqservice.spans import TracedBroker, traced  # noqa: PLC0415 - needs the extra otel

    return TracedBroker, traced


async def _keep_alive(server: EmbeddedServer) -> None:
    """Start our own server again when somebody killed it together with its keeper."""
    while True:
        await asyncio.sleep(_LOOK_S)
        if server.server_pid() is None:
            with contextlib.suppress(EmbeddedError):  # the next look tries again; the outage is logged as any other
                await server.revive()
