"""The service: what a user's program holds. It registers handlers, sends, publishes, starts and stops.

The command line runs it under signals, a test runs it as a context manager. The wiring is in `runtime`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from mqservice import keys
from mqservice.backend import Backend
from mqservice.broker import Broker, new_id
from mqservice.config import Config, load
from mqservice.errors import MessageFailed, NoSuchQueue, NotUnique, QueueFull
from mqservice.handlers import Function, Registry
from mqservice.message import NO_META, Meta, Outgoing, encode_body
from mqservice.message_view import MessageView
from mqservice.results import ENDED
from mqservice.retry import MOST_S
from mqservice.runtime import Parts, Runtime
from mqservice.tracing import HEADER, current

F = TypeVar("F", bound=Function)

_MOST_AT_ONCE = 10_000


@dataclass(slots=True)
class Sent:
    """A message that Redis has."""

    id: str
    queue: str
    state: str
    """ready or scheduled; for an id that existed already, the state it was found in."""
    existed: bool = False
    _wait: Callable[[str, str, float], Awaitable[MessageView | None]] | None = field(default=None, repr=False)

    async def result(self, timeout: float = 60.0) -> Any:
        """Return what the handler returned, in whatever process it ran; wait up to `timeout` seconds for it.

        Raises TimeoutError when it is not there by then, MessageFailed when the message is dead or cancelled, or is
        forgotten because its result was kept no longer, Unavailable when Redis is away.
        """
        if self._wait is None:
            raise MessageFailed(f"messages of {self.queue} leave no result: it is at-most-once")
        view = await self._wait(self.queue, self.id, timeout)
        if view is None:
            raise MessageFailed(f"message {self.id} of {self.queue} is not known any more")
        if view.state == "done":
            return view.result
        if view.state in ENDED:
            error = f": {view.error.type}: {view.error.text}" if view.error else ""
            raise MessageFailed(f"message {self.id} of {self.queue} is {view.state} {view.reason or ''}{error}")
        raise TimeoutError(f"message {self.id} of {self.queue} is still {view.state} after {timeout:g} s")


class Service:
    """Queues, channels and their handlers.

    `config` is a path to a TOML file, a ready Config, or None for the usual places. A process runs one service.
    """

    def __init__(self, config: str | Path | Config | None = None) -> None:
        self._source = config
        self._config: Config | None = config if isinstance(config, Config) else None
        self._registry = Registry()
        self._runtime: Runtime | None = None

    @property
    def config(self) -> Config:
        """The configuration, read at first use. Raises ConfigError."""
        if self._config is None:
            source = self._source
            self._config = load(Path(source) if isinstance(source, (str, Path)) else None).config
        return self._config

    def configure(self, config: Config) -> None:
        """Replace the configuration, before start."""
        self._config = config

    def handler(
        self,
        queue: str,
        *,
        key: str | None = None,
        concurrency: int | None = None,
        attempts: int | None = None,
        retry: float | None = None,
        retry_max: float | None = None,
        timeout: float | None = None,
        lease: float | None = None,
        delivery: str | None = None,
    ) -> Callable[[F], F]:
        """Return a decorator: the function handles the messages of `queue`.

        `timeout`, `lease`, `retry` (the wait after the first failed attempt, doubling) and `retry_max` in seconds;
        `key` is the Redis list, if not `mq:<queue>`. What the configuration says under `[queues.<queue>]` wins over
        what is said here.
        """
        options = {
            "key": key,
            "concurrency": concurrency,
            "attempts": attempts,
            "retry_s": retry,
            "retry_max_s": retry_max,
            "timeout_s": timeout,
            "lease_s": lease,
            "delivery": delivery,
        }
        return self._registry.handler(queue, options)

    def subscriber(self, channel: str, *, key: str | None = None) -> Callable[[F], F]:
        """Return a decorator: the function gets what is published on `channel`, or on a pattern such as `prices.*`.

        `key` is the Redis channel, if not named as ours. `[channels.<channel>]` of the configuration wins.
        """
        return self._registry.subscriber(channel, key)

    async def send(
        self,
        queue: str | Function,
        body: Any,
        *,
        id: str | None = None,  # noqa: A002 - the word of the API
        delay: float = 0.0,
        at: datetime | None = None,
        ttl: float = 0.0,
        attempts: int | None = None,
        retry: float | None = None,
        unique: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Sent:
        """Send a message to a queue, by name or by its handler. Returns once Redis has it.

        `bytes` travel as they are, anything else as JSON. `delay`, `ttl` and `retry` (the wait after the first failed
        attempt) in seconds, at most a year; expired before it starts, a
        message is dead. What a handler sends belongs to the trace of its own message, unless `headers` have another
        `traceparent`. Sending an `id` that exists does nothing and says so. Raises Unavailable (send again with
        the same id: it cannot double), OutOfMemory, QueueFull, NotUnique (an unfinished message has this `unique`
        key), UnsendableBody, InvalidName, NoSuchQueue.
        """
        backend = self._running().backend
        broker = backend.broker(self._queue_name(queue))
        message = Outgoing(
            id=new_id() if id is None else keys.valid_name(id, "id"),
            body=encode_body(body),
            meta=_meta(headers, attempts, retry),
            delay_ms=_ms("delay", delay) if delay else 0,
            at_ms=int(at.timestamp() * 1000) if at else 0,
            ttl_ms=_ms("ttl", ttl) if ttl else 0,
            unique=unique,
        )
        if broker.queue.delivery == "at-most-once":
            await broker.push(message.body)
            return Sent(message.id, broker.queue.name, "ready")
        state = await broker.send(message)
        if state.startswith("!"):
            raise NotUnique(f"message {state[1:]} of {broker.queue.name} has the unique key {unique!r}, unfinished")
        return _sent(broker, message.id, state, backend)

    async def send_many(
        self,
        queue: str | Function,
        bodies: Sequence[Any],
        *,
        ids: Sequence[str] | None = None,
        delay: float = 0.0,
        at: datetime | None = None,
        ttl: float = 0.0,
        attempts: int | None = None,
        retry: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> list[Sent]:
        """Send up to 10,000 messages to a queue as one: Redis has all of them or none. 1 round trip.

        `ids` names them, in the order of `bodies`; one that exists is left as it is. Everything else as `send`.
        """
        if len(bodies) > _MOST_AT_ONCE:
            raise ValueError(
                f"{len(bodies)} messages at once: at most {_MOST_AT_ONCE}, for they hold Redis up meanwhile"
            )
        if ids is not None and len(ids) != len(bodies):
            raise ValueError(f"{len(ids)} ids for {len(bodies)} bodies")
        backend = self._running().backend
        broker = backend.broker(self._queue_name(queue))
        names = [new_id() for _ in bodies] if ids is None else [keys.valid_name(name, "id") for name in ids]
        meta, delay_ms, ttl_ms = _meta(headers, attempts, retry), _ms("delay", delay), _ms("ttl", ttl)
        at_ms = int(at.timestamp() * 1000) if at else 0
        encoded = [encode_body(body) for body in bodies]
        if not names:
            return []
        if broker.queue.delivery == "at-most-once":
            await broker.push_many(encoded)
            return [Sent(name, broker.queue.name, "ready") for name in names]
        if meta is NO_META and not (delay_ms or at_ms or ttl_ms):
            states = await broker.send_plain(names, encoded)
        else:
            states = await broker.send_many(
                [Outgoing(*one, meta, delay_ms, at_ms, ttl_ms) for one in zip(names, encoded, strict=True)]
            )
        if states.count("ready") == len(states):
            name_of_queue, wait = broker.queue.name, backend.wait
            return [Sent(name, name_of_queue, "ready", False, wait) for name in names]
        return [_sent(broker, name, state, backend) for name, state in zip(names, states, strict=True)]

    async def publish(self, channel: str, body: Any) -> int:
        """Publish to every subscriber of `channel`; return how many connections received it."""
        return (await self._running().backend.channels.publish(channel, encode_body(body))).receivers

    async def start(self, parts: Parts | None = None) -> None:
        """Bring everything up: Redis, scripts, subscriber, consumers, HTTP last. Raises MqError, with nothing left."""
        if self._runtime is not None:
            raise RuntimeError("this service is running")
        self._runtime = await Runtime.start(self.config, self._registry, parts or Parts())

    async def wait_failed(self) -> None:
        """Wait until a part that must not end has ended, then raise why."""
        await self._running().wait_failed()

    async def stop(self, grace_s: float | None = None, hurry: asyncio.Event | None = None) -> None:
        """Drain: take nothing new, let handlers finish for `grace_s` or until `hurry`, release the rest.

        Twice is once.
        """
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            await runtime.stop(self.config.service.drain_s if grace_s is None else grace_s, hurry)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def describe(self) -> dict[str, str]:
        """Return what the start screen says: url, redis, queues, channels."""
        return self._running().describe()

    @property
    def url(self) -> str:
        """The address of the HTTP listener. Raises RuntimeError without one."""
        server = self._running().server
        if server is None:
            raise RuntimeError("this service has no HTTP listener")
        return server.url

    def _running(self) -> Runtime:
        if self._runtime is None:
            raise RuntimeError("the service is not running: `async with service:`, or `await service.start()`")
        return self._runtime

    def _queue_name(self, queue: str | Function) -> str:
        if isinstance(queue, str):
            return queue
        name = self._registry.queue_of(queue)
        if name is None:
            raise NoSuchQueue(f"{queue!r} is not the handler of any queue")
        return name


def _sent(broker: Broker, message_id: str, state: str, backend: Backend) -> Sent:
    if state == "ready":  # as nearly all
        return Sent(message_id, broker.queue.name, state, False, backend.wait)
    if state == "full":
        raise QueueFull(f"queue {broker.queue.name} holds {broker.queue.max_length} ready messages already")
    return Sent(message_id, broker.queue.name, state.removeprefix("="), state.startswith("="), backend.wait)


def _meta(headers: Mapping[str, str] | None, attempts: int | None, retry_s: float | None) -> Meta:
    trace = current()
    if headers is None and attempts is None and retry_s is None and trace is None:
        return NO_META
    traced = {HEADER: trace.traceparent} if trace is not None else {}
    return Meta(headers={**traced, **(headers or {})}, attempts=attempts, retry_s=retry_s)


def _ms(option: str, seconds: float) -> int:
    """Return seconds as ms. Raises ValueError when it is not a number from 0 to a year."""
    if not 0 <= seconds <= MOST_S:
        raise ValueError(f"{option}={seconds!r}: expected seconds from 0 to {MOST_S}")
    return int(seconds * 1000)
