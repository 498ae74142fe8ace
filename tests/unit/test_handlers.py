"""The registry: what it refuses, and how a body becomes a handler's first argument."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import msgspec
import pytest

from mqservice.errors import ConfigError, InvalidName
from mqservice.handlers import Handler, Registry, decoder, is_pattern
from mqservice.message import NO_META, Message, Meta

TEXT = Meta(content_type="text/plain")
MESSAGE = Message("1", "letters")


class Line(msgspec.Struct):
    count: int


class Order(msgspec.Struct):
    to: str
    lines: list[Line] = []


@dataclass
class Point:
    x: int
    y: int = 0


class Price(TypedDict):
    amount: float


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, thread_name_prefix="handler") as threads:
        yield threads


def registered(function: Callable[..., Any]) -> Handler:
    registry = Registry()
    registry.handler("letters", {})(function)
    return registry.handlers["letters"]


# Registering


def test_handler_when_registered_then_the_decorator_returns_the_function_itself() -> None:
    async def read(body: str) -> None: ...

    registry = Registry()
    assert registry.handler("letters", {"attempts": 3})(read) is read
    assert registry.handlers["letters"].function is read
    assert registry.handlers["letters"].options == {"attempts": 3}


def test_handler_when_a_queue_has_one_already_then_the_second_is_refused_and_the_first_stays() -> None:
    def first(body: str) -> None: ...
    def second(body: str) -> None: ...

    registry = Registry()
    registry.handler("letters", {})(first)
    with pytest.raises(ConfigError, match=r'queue "letters" has a handler already: .*first'):
        registry.handler("letters", {})(second)
    assert registry.handlers["letters"].function is first


def test_handler_when_one_function_serves_two_queues_then_both_have_it() -> None:
    def read(body: str) -> None: ...

    registry = Registry()
    registry.handler("letters", {})(registry.handler("parcels", {})(read))
    assert registry.handlers.keys() == {"letters", "parcels"}


@pytest.mark.parametrize("name", ["", "a b", "a/b", "{a}", "é", "a" * 129])
def test_handler_when_its_queue_is_no_name_then_it_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        Registry().handler(name, {})


def no_parameter() -> None: ...
def unknown_second(body: str, other: int) -> None: ...
def unknown_second_with_default(body: str, retries: int = 3) -> None: ...
def third(body: str, message: Message, other: int) -> None: ...
def message_by_keyword(body: str, *, message: Message) -> None: ...
def body_by_keyword(*, body: str) -> None: ...


@pytest.mark.parametrize(
    "function",
    [no_parameter, unknown_second, unknown_second_with_default, third, message_by_keyword, body_by_keyword],
    ids=lambda function: function.__name__,
)
def test_handler_when_it_cannot_be_called_with_body_and_message_then_it_is_refused_by_name(
    function: Callable[..., Any],
) -> None:
    registry = Registry()
    with pytest.raises(ConfigError, match=f"{function.__name__}: a handler takes the body"):
        registry.handler("letters", {})(function)
    assert registry.handlers == {}


def test_handler_when_its_body_type_cannot_be_checked_then_it_is_refused() -> None:
    def read(body: int | list[int] | tuple[int, int]) -> None: ...

    with pytest.raises(ConfigError, match=r"a body of type .*list.* cannot be checked"):
        registered(read)


def message_by_name(body: str, message: Any) -> None: ...
def message_by_type(body: str, about: Message) -> None: ...
def without_annotations(body, message): ...  # type: ignore[no-untyped-def]
def body_only(body: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "wants"),
    [(message_by_name, True), (message_by_type, True), (without_annotations, True), (body_only, False)],
)
def test_handler_when_it_has_a_message_parameter_then_it_wants_the_message(
    function: Callable[..., Any], wants: bool
) -> None:
    assert registered(function).wants_message is wants


def test_handler_when_it_is_a_method_then_self_does_not_count() -> None:
    class Office:
        def read(self, body: int, message: Message) -> None: ...

    handler = registered(Office().read)
    assert handler.wants_message
    assert handler.decode(b"7", NO_META) == 7


def test_handler_when_its_annotation_bounds_the_body_then_the_bound_is_checked() -> None:
    def read(body: Annotated[int, msgspec.Meta(ge=1)]) -> None: ...

    handler = registered(read)
    assert handler.decode(b"1", NO_META) == 1
    with pytest.raises(msgspec.ValidationError, match=">= 1"):
        handler.decode(b"0", NO_META)


def test_queue_of_when_a_function_handles_one_then_its_name_is_found() -> None:
    registry = Registry()
    registry.handler("letters", {})(body_only)
    assert registry.queue_of(body_only) == "letters"
    assert registry.queue_of(no_parameter) is None


# Subscribers


def test_subscriber_when_a_channel_has_one_already_then_both_follow_it() -> None:
    registry = Registry()
    assert registry.subscriber("prices")(body_only) is body_only
    registry.subscriber("prices")(message_by_name)
    assert [known.function for known in registry.subscribers] == [body_only, message_by_name]


def test_subscriber_when_it_takes_no_body_then_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="no_parameter: a handler takes the body"):
        Registry().subscriber("prices")(no_parameter)


def test_channel_key_when_a_subscriber_says_one_then_it_holds_for_that_channel_only() -> None:
    registry = Registry()
    registry.subscriber("prices", key="task:pubsub:channel")(body_only)
    registry.subscriber("news")(body_only)
    assert registry.channel_key("prices") == "task:pubsub:channel"
    assert registry.channel_key("news") == "news"
    assert registry.channel_key("unknown") == "unknown"


@pytest.mark.parametrize(
    ("channel", "expected"), [("prices.*", True), ("price?", True), ("[ab]", True), ("prices.eur", False)]
)
def test_is_pattern_when_a_sign_of_redis_is_in_it_then_it_is_one(channel: str, expected: bool) -> None:
    assert is_pattern(channel) is expected


# Calling


async def test_call_when_the_function_suspends_then_it_runs_on_the_loop(threads: ThreadPoolExecutor) -> None:
    async def read(body: int, message: Message) -> tuple[object, ...]:
        return body, message, threading.current_thread().name

    assert await registered(read).call(7, MESSAGE, threads) == (7, MESSAGE, threading.current_thread().name)


async def test_call_when_the_function_is_plain_then_it_runs_in_a_thread(threads: ThreadPoolExecutor) -> None:
    def read(body: int) -> tuple[int, str]:
        return body, threading.current_thread().name

    body, thread = await registered(read).call(7, MESSAGE, threads)
    assert body == 7
    assert thread.startswith("handler")


# Decoding


@pytest.mark.parametrize(
    ("annotation", "meta", "body", "expected"),
    [
        (bytes, NO_META, b'"\xff', b'"\xff'),
        (bytes, NO_META, b"", b""),
        (str, NO_META, b"hello", "hello"),
        (str, NO_META, b'"hello"', "hello"),
        (str, TEXT, b'"hello"', '"hello"'),
        (str, NO_META, b'"hello" she said', '"hello" she said'),
        (str, NO_META, b'"', '"'),
        (str, NO_META, b"7", "7"),
        (str, NO_META, b"", ""),
        (str, NO_META, "饭".encode(), "饭"),
        (Any, NO_META, b'{"a": [1, null]}', {"a": [1, None]}),
        (Any, NO_META, b"7", 7),
        (Any, NO_META, b"hello", "hello"),
        (Any, NO_META, b"", ""),
        (Any, NO_META, b"\xff", b"\xff"),
        (Any, NO_META, b'"\xff"', b'"\xff"'),
        (Any, TEXT, b"7", "7"),
        (Any, TEXT, b"\xff", b"\xff"),
        (Any, NO_META, b"1" * 5000, "1" * 5000),
        (int, NO_META, b"7", 7),
        (list[int], NO_META, b"[1, 2]", [1, 2]),
        (dict, NO_META, b'{"a": 1}', {"a": 1}),
        (int | None, NO_META, b"null", None),
        (Order, NO_META, b'{"to": "a@b", "lines": [{"count": 2}]}', Order("a@b", [Line(2)])),
        (Order, TEXT, b'{"to": "a@b"}', Order("a@b")),
        (Point, NO_META, b'{"x": 1}', Point(1)),
        (Price, NO_META, b'{"amount": 2.5}', {"amount": 2.5}),
    ],
)
def test_decoder_when_the_body_fits_then_it_is_of_the_annotated_type(
    annotation: Any, meta: Meta, body: bytes, expected: object
) -> None:
    decoded = decoder(annotation)(body, meta)
    assert decoded == expected
    assert type(decoded) is type(expected)


def test_decoder_when_nothing_is_annotated_then_it_decodes_what_it_can() -> None:
    assert registered(without_annotations).decode(b"[1]", NO_META) == [1]


@pytest.mark.parametrize(
    ("annotation", "body", "path"),
    [
        (Order, b'{"to": 7}', r"\$\.to"),
        (Order, b'{"to": "a@b", "lines": [{"count": 1}, {"count": "two"}]}', r"\$\.lines\[1\]\.count"),
        (Order, b"{}", "missing required field `to`"),
        (Point, b'{"x": "one"}', r"\$\.x"),
        (Price, b'{"amount": "much"}', r"\$\.amount"),
        (list[int], b'[1, "two"]', r"\$\[1\]"),
        (int, b'"7"', "Expected `int`, got `str`"),
        (int, b"1" * 5000, "out of range"),
        (Order, b"", "truncated"),
        (Order, b"{", "truncated"),
        (int, b"7 8", "trailing"),
        (Order, b"hello", "malformed"),
    ],
)
def test_decoder_when_the_body_does_not_fit_then_the_error_says_where(annotation: Any, body: bytes, path: str) -> None:
    with pytest.raises(msgspec.MsgspecError, match=path):
        decoder(annotation)(body, NO_META)


@pytest.mark.parametrize("body", [b"\xff", b'"\xff"'])
def test_decoder_when_a_text_is_not_utf8_then_it_says_so(body: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        decoder(str)(body, NO_META)
