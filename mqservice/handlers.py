"""The registry: which Python function consumes which queue or channel, and how its first parameter is decoded.

Filled by the decorators of `Service`, read by the executor and the consumers. Knows nothing of Redis.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

import msgspec

from mqservice import jsontext
from mqservice.errors import ConfigError
from mqservice.keys import valid_name
from mqservice.message import Message, Meta

Function = Callable[..., Any]
F = TypeVar("F", bound=Function)
Decode = Callable[[bytes, Meta], Any]


@dataclass(frozen=True)
class Handler:
    """One function with what is needed to call it. `name` is its queue's, or its channel's or pattern's."""

    name: str
    function: Function
    decode: Decode
    """Turns the body's bytes into the first argument. Raises msgspec.MsgspecError or UnicodeDecodeError."""
    wants_message: bool
    suspends: bool
    """True for `async def`; a plain `def` runs in a thread."""
    options: dict[str, Any] = field(default_factory=dict)

    async def call(self, body: Any, message: Message, threads: Executor | None) -> Any:
        """Call the function and return what it returns."""
        args = (body, message) if self.wants_message else (body,)
        if self.suspends:
            return await self.function(*args)
        return await self.call_in(threads, args)

    async def call_in(self, threads: Executor | None, args: tuple[Any, ...]) -> Any:
        """Call a plain function in a thread, in a copy of our context, and return what it returns."""
        context = copy_context()
        return await asyncio.get_running_loop().run_in_executor(threads, context.run, self._call_plain, args)

    def _call_plain(self, args: tuple[Any, ...]) -> Any:
        try:
            return self.function(*args)
        except StopIteration as error:  # a Future cannot hold it: the caller would wait for ever
            raise RuntimeError("the handler raised StopIteration") from error


class Registry:
    """All handlers and subscribers of one service, by name."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self.subscribers: list[Handler] = []

    def handler(self, queue: str, options: dict[str, Any]) -> Callable[[F], F]:
        """Return a decorator that makes a function the handler of `queue`. A queue has one handler a process."""
        valid_name(queue)

        def register(function: F) -> F:
            if queue in self.handlers:
                raise ConfigError(f'queue "{queue}" has a handler already: {self.handlers[queue].function!r}')
            self.handlers[queue] = _handler(queue, function, options)
            return function

        return register

    def subscriber(self, channel: str, key: str | None = None) -> Callable[[F], F]:
        """Return a decorator that makes a function a subscriber of a channel, or of a pattern with `*`, `?`, `[`.

        `key` is the Redis channel where it is not called as ours.
        """

        def register(function: F) -> F:
            self.subscribers.append(_handler(channel, function, {"key": key or channel}))
            return function

        return register

    def channel_key(self, channel: str) -> str:
        """Return the Redis channel of our channel, as its subscriber says; the name itself when none does."""
        keys = (known.options["key"] for known in self.subscribers if known.name == channel)
        return next(keys, channel)

    def queue_of(self, function: Function) -> str | None:
        """Return the queue that `function` handles, None when it handles none. Bound methods compare by value."""
        return next((name for name, known in self.handlers.items() if known.function == function), None)


def is_pattern(channel: str) -> bool:
    """Tell whether a subscriber's name is a pattern of Redis (PSUBSCRIBE)."""
    return any(sign in channel for sign in "*?[")


def _handler(name: str, function: Function, options: dict[str, Any]) -> Handler:
    parameters = list(inspect.signature(function).parameters.values())
    hints = get_type_hints(function, include_extras=True)
    second = parameters[1] if len(parameters) > 1 else None
    if not _takes_body_and_message(parameters, hints):
        raise ConfigError(f"{function.__qualname__}: a handler takes the body, and if it wants to, `message: Message`")
    return Handler(
        name,
        function,
        decoder(hints.get(parameters[0].name, Any)),
        wants_message=second is not None,
        suspends=inspect.iscoroutinefunction(function),
        options=options,
    )


def _takes_body_and_message(parameters: Sequence[inspect.Parameter], hints: Mapping[str, Any]) -> bool:
    """Tell whether a function can be called with a body, or with a body and a message."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or any(p.kind not in positional for p in parameters[:2]):
        return False
    if any(p.default is inspect.Parameter.empty and p.kind in positional for p in parameters[2:]):
        return False
    if any(p.kind is inspect.Parameter.KEYWORD_ONLY and p.default is inspect.Parameter.empty for p in parameters[2:]):
        return False
    return len(parameters) == 1 or parameters[1].name == "message" or hints.get(parameters[1].name) is Message


def decoder(annotation: Any) -> Decode:
    """Return what turns a body into the annotated type.

    bytes: as it came. str: the text, or the string when the body is a JSON string. Nothing or Any: JSON, else text,
    else bytes. Everything else: JSON checked by msgspec.
    """
    if annotation is bytes:
        return _as_bytes
    if annotation is str:
        return _as_text
    if annotation is Any or annotation is inspect.Parameter.empty:
        return _as_anything
    try:
        typed = msgspec.json.Decoder(annotation)
    except TypeError as error:
        raise ConfigError(f"a body of type {annotation!r} cannot be checked: {error}") from None
    return lambda body, _meta: jsontext.without_pauses(typed.decode, body)


_JSON_TEXT = msgspec.json.Decoder(str)


def _as_bytes(body: bytes, _meta: Meta) -> bytes:
    return body


def _as_text(body: bytes, meta: Meta) -> str:
    if body[:1] == b'"' and not meta.content_type.startswith("text/"):
        try:
            return _JSON_TEXT.decode(body)
        except msgspec.DecodeError:
            pass  # a text that happens to start with a quotation mark
    return body.decode()


def _as_anything(body: bytes, meta: Meta) -> Any:
    if not meta.content_type.startswith("text/"):
        try:
            return jsontext.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body
