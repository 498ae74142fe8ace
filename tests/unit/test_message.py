"""What travels: bodies, metadata, and what a handler may know and say."""

from typing import Any

import msgspec
import pytest

from mqservice.errors import MqError
from mqservice.message import JSON, NO_META, Message, Meta, UnsendableBody, encode_body


class Letter(msgspec.Struct):
    to: str


async def test_progress_when_within_bounds_then_it_is_reported() -> None:
    reported = []

    async def report(fraction: float, text: str) -> None:
        reported.append((fraction, text))

    message = Message("1", "emails", report=report)
    await message.progress(0.0)
    await message.progress(0.5, "sent to relay")
    await message.progress(1)
    assert reported == [(0.0, ""), (0.5, "sent to relay"), (1, "")]


@pytest.mark.parametrize("fraction", [-0.001, 1.001, 50, float("nan"), float("inf"), float("-inf")])
async def test_progress_when_out_of_bounds_then_it_is_refused_and_nothing_reported(fraction: float) -> None:
    async def report(fraction: float, text: str) -> None:
        pytest.fail("reported")

    with pytest.raises(ValueError, match="is not between 0 and 1"):
        await Message("1", "emails", report=report).progress(fraction)


async def test_progress_when_nobody_can_be_told_then_it_does_nothing() -> None:
    await Message("1", "emails").progress(0.5)


async def test_progress_when_nobody_can_be_told_then_bounds_hold_all_the_same() -> None:
    with pytest.raises(ValueError, match="is not between"):
        await Message("1", "emails").progress(2)


def test_message_when_made_with_the_least_then_it_is_a_first_attempt_without_headers() -> None:
    message = Message("1", "emails")
    assert (message.id, message.queue, message.attempt, message.headers) == ("1", "emails", 1, {})
    assert repr(message) == "Message(id='1', queue='emails', attempt=1)"


def test_message_when_a_handler_changes_its_headers_then_the_common_default_stays_empty() -> None:
    Message("1", "emails", NO_META.headers).headers["seen"] = "yes"
    assert NO_META.headers == Meta().headers == {}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"\x00\xff", b"\x00\xff"),
        (b"", b""),
        ("7", b'"7"'),
        (7, b"7"),
        (None, b"null"),
        ({"to": "a@b"}, b'{"to":"a@b"}'),
        (Letter("a@b"), b'{"to":"a@b"}'),
        ("饭", '"饭"'.encode()),
    ],
)
def test_encode_body_when_it_can_travel_then_bytes_stay_and_the_rest_is_json(body: Any, expected: bytes) -> None:
    assert encode_body(body) == expected


def nested_in_itself() -> list[Any]:
    body: list[Any] = []
    body.append(body)
    return body


@pytest.mark.parametrize(
    "body", [object(), lambda: None, {(1, 2): 3}, "\ud800", nested_in_itself()], ids=lambda body: type(body).__name__
)
def test_encode_body_when_json_cannot_hold_it_then_the_error_names_its_type(body: Any) -> None:
    with pytest.raises(UnsendableBody, match=f"body of type {type(body).__name__} is not JSON") as caught:
        encode_body(body)
    assert isinstance(caught.value, MqError)
    assert caught.value.code == "unsendable-body"


def test_meta_when_all_is_default_then_nothing_is_stored() -> None:
    assert JSON.encode(NO_META) == b"{}"


def test_meta_when_stored_and_read_then_it_is_the_same() -> None:
    meta = Meta(headers={"a": "b"}, content_type="text/plain", attempts=3)
    assert msgspec.json.decode(JSON.encode(meta), type=Meta) == meta
