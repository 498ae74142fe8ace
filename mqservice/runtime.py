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
from functools import partial
from typing import Any, Self

import structlog

from mqservice import keys, scripts
from mqservice.broker import Broker
from mqservice.channels import Channels
from mqservice.config import ChannelOptions, Config, QueueOptions, all_tokens, redacted
from mqservice.connections import Connections, open_redis
from mqservice.consumer import Consumer, Execute
from mqservice.embedded import EmbeddedServer
from mqservice.errors import EmbeddedError, MqError, NoSuchQueue, Unavailable
from mqservice.executor import Execution
from mqservice.fanout import Fanout
from mqservice.following import follow
from mqservice.handlers import Handler, Registry, is_pattern
from mqservice.history import History
from mqservice.idempotency import Idempotency
from mqservice.lag import LoopLag
from mqservice.leases import Renewal
from mqservice.log import stand_aside
from mqservice.message import Outgoing
from mqservice.message_view import MessageView
from mqservice.metrics import Metrics
from mqservice.numbers import Numbers, numbers
from mqservice.operations import Operations
from mqservice.popper import Popper
from mqservice.processes import Processes
from mqservice.queue_streams import QueueStreams
from mqservice.reports import Reporter, Subject
from mqservice.results import Waiters
from mqservice.schedule_store import Schedules
from mqservice.scheduler import Scheduler
from mqservice.session_key import session_key
from mqservice.sidecar import Sidecar
from mqservice.subscriber import Subscriber
from mqservice.summary import Summary
from mqservice.tally import Tally
from mqservice.tracing import wants_spans
from mqservice.views import Views
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

_BROKERS = 1_000
"""Brokers kept at hand; then those that have a handler or something under way. The names come from outside."""

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

    def __init__(self, config: Config, registry: Registry, parts: Parts) -> None:
        self._config, self._registry, self._parts = config, registry, parts
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.server: Server | None = None
        self._embedded: EmbeddedServer | None = None
        self._connections: Connections | None = None
        self._waiters: Waiters | None = None
        self._channels: Channels | None = None
        self._reporter: Reporter | None = None
        self._fanout: Fanout | None = None
        self._queue_streams: QueueStreams | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="handler")
        self._broker_type, self._execute = _traced() if wants_spans() else (Broker, _plainly)
        self._brokers: dict[str, Broker] = {}
        self._consumers: list[Consumer | Popper] = []
        self._subscribers: list[Subscriber] = []
        self._scheduler: Scheduler | None = None
        self._sidecar: Sidecar | None = None
        self.lag = LoopLag(self._at_work)
        self.tally = Tally()
        self.watchdog: Watchdog | None = None
        self._draining: set[asyncio.Task[None]] = set()
        """The watched tasks that end by themselves after `stop()`."""
        self._watched: dict[asyncio.Task[None], str] = {}
        self._redis_text = ""
        self._ready = False

    @property
    def waiters(self) -> Waiters:
        """Everybody in this process who waits for a message."""
        if self._waiters is None:
            self._waiters = Waiters(self._redis(), keys.process_channel(self.name))
        return self._waiters

    @property
    def schedules(self) -> Schedules:
        """The schedules of this Redis."""
        return Schedules(self._redis())

    @property
    def channels(self) -> Channels:
        """What publishes."""
        if self._channels is None:
            self._channels = Channels(self._redis(), self._channel)
        return self._channels

    @property
    def fanout(self) -> Fanout:
        """What clients follow."""
        if self._fanout is None:
            self._fanout = Fanout(self._redis(), self._channel)
        return self._fanout

    @property
    def queue_streams(self) -> QueueStreams:
        """The queues that clients watch."""
        if self._queue_streams is None:
            self._queue_streams = QueueStreams(self._redis())
        return self._queue_streams

    @classmethod
    async def start(cls, config: Config, registry: Registry, parts: Parts) -> Self:
        """Bring everything up in order, HTTP last. On any error nothing is left behind."""
        stand_aside()
        runtime = cls(config, registry, parts)
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

    def broker(self, queue: str) -> Broker:
        """Return the broker of a queue. Raises InvalidName."""
        broker = self._brokers.get(queue)
        if broker is None:
            handler = self._registry.handlers.get(queue)
            options = self._config.queue_options(queue, **(handler.options if handler else {}))
            if len(self._brokers) >= _BROKERS:
                self._brokers = {
                    q: b for q, b in self._brokers.items() if q in self._registry.handlers or not b.is_idle
                }
            count_sent = partial(self.tally.sent, queue)
            broker = self._brokers[queue] = self._broker_type(self._redis(), options, count_sent)
        return broker

    def views(self, queue: str) -> Views:
        """Return the views of a queue. Raises InvalidName."""
        return Views(self._redis(), self.broker(queue).queue)

    def operations(self, queue: str) -> Operations:
        """Return the operations on a queue. Raises InvalidName."""
        return Operations(self._redis(), self.broker(queue).queue)

    async def wait(self, queue: str, message_id: str, timeout_s: float) -> MessageView | None:
        """Return a message as soon as it has ended, else as it is after `timeout_s`; None: unknown."""
        return await self.waiters.wait(self.broker(queue).queue, message_id, timeout_s)

    async def queues(self) -> list[str]:
        """Return the names of all queues that any process has served or sent to, sorted. 1 round trip."""
        names = await self._redis().guard(lambda: self._redis().commands.smembers(keys.QUEUES))
        known = (name.decode(errors="replace") if isinstance(name, bytes) else name for name in names)
        return sorted(name for name in known if keys.is_name(name))  # a stranger may have put in anything

    async def known_queues(self) -> list[QueueOptions]:
        """Return what holds for each of `queues()`. 1 round trip."""
        return [self.broker(name).queue for name in await self.queues()]

    async def numbers(self) -> Numbers:
        """Return everything at a glance. 7 round trips."""
        names = {*self._config.channels, *(subscriber.name for subscriber in self._registry.subscribers)}
        channels = {name: self._channel(name).key for name in names if not is_pattern(name)}
        return await numbers(self._redis(), await self.known_queues(), channels)

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
        await self._close_redis()  # 8. sends under way are finished, connections closed
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._embedded is not None:
            self._embedded.leave()  # 9. our own server ends when its last user has gone

    def _redis(self) -> Connections:
        if self._connections is None:
            raise RuntimeError("not connected yet")
        return self._connections

    async def _start_redis(self) -> None:
        config = self._config.redis
        url, self._embedded = await open_redis(config)
        if self._embedded is not None:
            self._watch(_keep_alive(self._embedded), "private server")
        self._connections = Connections(url, config.deadline_s, config.pool)
        await self._connections.load(scripts.ALL)
        version = await self._connections.version()
        where = redacted(url)
        if self._embedded is not None:
            where = f"our own, data kept in {self._embedded.directory}"
        self._redis_text = f"{version}, {where}"

    async def _start_subscription(self) -> None:
        by_key: dict[str, list[Subscriber]] = {}
        for handler in self._registry.subscribers if self._parts.consumers else ():
            subscriber = Subscriber(handler)
            self._subscribers.append(subscriber)
            by_key.setdefault(self._channel(handler.name).key, []).append(subscriber)
            self._draining.add(self._watch(subscriber.run(), f"subscriber {handler.name}"))
        subscription = follow(
            self._redis(), self.name, by_key, self.fanout, self.queue_streams, self.waiters.notify, self._cancel
        )
        following = self._watch(subscription.run(), "subscription")
        self._watch(self.fanout.run(), "channel streams")
        self._watch(self.queue_streams.run(), "queue streams")
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
        renewal = Renewal(consumers, asyncio.get_running_loop(), self._redis().again, lambda: self.lag.stuck_s)
        self._sidecar = Sidecar([renewal.run, self.lag.watch])
        self._sidecar.start()
        self.watchdog = Watchdog(self._consumers, self._redis())
        self._watch(self.watchdog.run(), "watchdog")

    async def _start_consumer(self, handler: Handler) -> None:
        broker = self.broker(handler.name)
        await broker.register()
        name = f"{self.name}/{handler.name}"
        execution = Execution(handler, broker.queue, self.name, self._threads, broker.progress)
        once = broker.queue.delivery == "at-most-once"
        self._reports().tell_runs(broker.queue)
        tally = self.tally.queue(handler.name, consumed=True)
        consumer = (
            Popper(broker, self._execute(execution), name, tally)
            if once
            else Consumer(broker, self._execute(execution), name, execution.failed, tally)
        )
        self._consumers.append(consumer)
        self._draining.add(self._watch(consumer.run(), f"consumer of {handler.name}"))

    def _start_reports(self) -> None:
        self._watch(self._reports().run(), "reports")
        if self._parts.summary:
            self._watch(Summary(self.tally).run(), "summary")

    def _reports(self) -> Reporter:
        if self._reporter is None:
            subject = Subject(
                name=self.name,
                consumed=self._consumed,
                known=self.known_queues,
                held=lambda: sum(consumer.held for consumer in self._consumers),
                streams=lambda: len(self.server.streams) if self.server else 0,
                published_per_s=self.channels.per_s,
                keeps_records=lambda queue: self.broker(queue).queue.delivery != "at-most-once",
                silent_s=self._silent_s,
            )
            self._reporter = Reporter(self._redis(), subject, lambda: self.lag.worst_ms, self.tally)
        return self._reporter

    def _start_scheduler(self) -> None:
        self._scheduler = Scheduler(
            self.schedules,
            self._send_scheduled,
            lambda queue: self.broker(queue).queue,
            tuple(self._config.schedules.values()),
            self._config.service.app,
        )
        self._draining.add(self._watch(self._scheduler.run(), "scheduler"))

    async def _send_scheduled(self, queue: str, body: bytes, message_id: str) -> str:
        broker = self.broker(queue)
        if broker.queue.delivery == "at-most-once":
            await broker.push(body)
            return "ready"
        return await broker.send(Outgoing(message_id, body))

    async def _start_http(self) -> None:
        tokens = all_tokens(self._config.auth)
        context = Context(
            broker=self.broker,
            views=self.views,
            operations=self.operations,
            queues=self.queues,
            waiters=self.waiters,
            idempotency=Idempotency(self._redis()),
            schedules=self.schedules,
            processes=Processes(self._redis()),
            history=History(self._redis()),
            numbers=self.numbers,
            metrics=Metrics(self._redis(), self._reports(), self.known_queues),
            tally=self.tally,
            publish=self.channels.publish,
            fanout=self.fanout,
            queue_streams=self.queue_streams,
            not_ready=self._not_ready,
            is_alive=self._is_alive,
            session_key=await session_key(self._redis()) if tokens else b"",
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

    def _channel(self, name: str) -> ChannelOptions:
        return self._config.channel_options(name, self._registry.channel_key(name))

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

    async def _close_redis(self) -> None:
        if self._connections is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                for broker in self._brokers.values():
                    await broker.aclose()
        await self._connections.aclose()


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
