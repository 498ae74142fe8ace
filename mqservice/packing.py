"""What scripts are given and what they answer, in the order of their headers: messages, leases, outcomes.

Used by the broker alone. Pure functions, run for every message: they are a third of what a drain costs this process.
"""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from mqservice.message import (
    JSON,
    NO_META,
    Cancelled,
    Claimed,
    Dead,
    Done,
    Outcome,
    Outgoing,
    Receipt,
    RetryIn,
    decode_meta,
)
from mqservice.records import number


def messages(outgoing: Sequence[Outgoing]) -> list[Any]:
    """Return what `send` takes from its fourth argument on."""
    if all(
        message.meta is NO_META
        and not (message.delay_ms or message.at_ms or message.ttl_ms or message.unique or message.watch)
        for message in outgoing
    ):
        ids = [message.id for message in outgoing]
        if len(set(ids)) == len(ids):
            return _two_each(ids, [message.body for message in outgoing])
    args: list[Any] = [4]
    for message in outgoing:
        meta = b"" if message.meta is NO_META else JSON.encode(message.meta)
        args += (message.id, message.body, meta, _extra_json(message))
    return args


def plain(ids: Sequence[str], bodies: Sequence[bytes]) -> list[Any]:
    """Return the same for messages that are no more than this: two thirds of the time of `messages`."""
    if len(set(ids)) < len(ids):
        return messages([Outgoing(*one) for one in zip(ids, bodies, strict=True)])
    return _two_each(ids, bodies)


def _two_each(ids: Sequence[str], bodies: Sequence[bytes]) -> list[Any]:
    args: list[Any] = [2] * (1 + 2 * len(ids))
    args[1::2], args[2::2] = ids, bodies
    return args


def states(answer: Any, count: int) -> list[str]:
    """Return one state a message, from what `send` answers to `count` of them."""
    if isinstance(answer, bytes):
        return [answer.decode()] * count
    return [state.decode(errors="replace") for state in answer]


def claimed(answer: Sequence[Any], token: str) -> tuple[list[Claimed], list[tuple[int, int]]]:
    """Return the messages that `claim` gave, and place and size of each body that is to be read from the record."""
    now_ms, spent = answer[1], answer[2]
    given = [
        Claimed(
            receipt=Receipt(message_id.decode(errors="replace"), token),
            body=body,
            meta=decode_meta(meta) if meta else NO_META,
            attempts=0,
            crashes=0,
            sent_ms=number(sent),
            claimed_ms=now_ms,
        )
        for message_id, sent, meta, body in zip(answer[3::4], answer[4::4], answer[5::4], answer[6::4], strict=True)
    ]
    for place, attempts, crashes in zip(spent[::3], spent[1::3], spent[2::3], strict=True):
        given[place - 1] = replace(given[place - 1], attempts=attempts, crashes=crashes)
    return given, [(place, body) for place, body in enumerate(answer[6::4]) if isinstance(body, int)]


def outcomes(settled: Sequence[tuple[Receipt, Outcome]]) -> tuple[list[Any], list[int]]:
    """Return what `settle` takes from its third argument on, and the places of those that it gets last."""
    done: list[Any] = []
    others: list[Any] = []
    last: list[int] = []
    for place, (receipt, outcome) in enumerate(settled):
        if type(outcome) is Done:
            done += (receipt.id, receipt.claim, outcome.result)
        else:
            others += _outcome(receipt, outcome)
            last.append(place)
    return [len(done) // 3, *done, *others], last


def settled(answer: Any, count: int, last: Sequence[int]) -> list[bool]:
    """Return whether each of `count` outcomes was settled, from what `settle` answers."""
    if isinstance(answer, int):
        return [True] * count
    late = set(last)
    order = [place for place in range(count) if place not in late] + [*last]
    by_place = dict(zip(order, answer, strict=True))
    return [by_place[place] == 1 for place in range(count)]


def _extra_json(message: Outgoing) -> bytes:
    wish: dict[str, int | str] = {}
    if message.delay_ms:
        wish["delay"] = message.delay_ms
    if message.at_ms:
        wish["at"] = message.at_ms
    if message.ttl_ms:
        wish["ttl"] = message.ttl_ms
    if message.unique:
        wish["unique"] = message.unique
    if message.watch:
        wish["watch"] = message.watch
    return JSON.encode(wish) if wish else b""


def _outcome(receipt: Receipt, outcome: Outcome) -> tuple[Any, ...]:
    match outcome:
        case RetryIn(delay_ms, attempt):
            return ("retry", receipt.id, receipt.claim, JSON.encode(attempt), delay_ms)
        case Dead(reason, attempt):
            return ("dead", receipt.id, receipt.claim, JSON.encode(attempt), reason)
        case Cancelled():
            return ("cancelled", receipt.id, receipt.claim, b"", b"")
        case _:
            raise TypeError(f"{outcome!r} is not settled but released")
