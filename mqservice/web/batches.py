"""Many messages in one request: a JSON array, or NDJSON that is parsed as it streams in. All or nothing."""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from mqservice import jsontext, message
from mqservice.broker import Broker
from mqservice.jsontext import FAULTS
from mqservice.message import NO_META, Outgoing
from mqservice.web.answers import AcceptedBatch, answer
from mqservice.web.body import FORM, chunks, content_type, is_json
from mqservice.web.context import CONTEXT, HTTP
from mqservice.web.idempotent import NewId, once
from mqservice.web.messages import chosen_id, full, trace_headers
from mqservice.web.parameters import Attempts, Delay, Name, Ttl, dec_hook
from mqservice.web.problems import Refusal

NDJSON: Final = ("application/x-ndjson", "application/jsonl")
MOST: Final = 10_000
LIMIT_BYTES: Final = 16 << 20
_AT_ONCE: Final = 1000
"""Messages that are made between two turns of the loop: about 2 ms."""


class Item(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A message of a batch. Nothing in it can lead back to it, so no collector need look at 10,000 of them."""

    body: Annotated[Raw, Meta(description="Any JSON; kept as it is written.")]
    id: Name | UnsetType = UNSET
    delay: Delay | UnsetType = UNSET
    ttl: Ttl | UnsetType = UNSET
    attempts: Attempts | UnsetType = UNSET


Items = Annotated[list[Item], Meta(min_length=1, max_length=MOST)]

_ITEM: Final = msgspec.json.Decoder(Item, dec_hook=dec_hook)
_ARRAY: Final = msgspec.json.Decoder(list[Item], dec_hook=dec_hook)
_RAW_ARRAY: Final = msgspec.json.Decoder(list[Raw])
_INDEX: Final = re.compile(r"\$\[([0-9]+)\]")


async def send(request: web.Request) -> web.Response:
    """Send many messages at once, all or none: a JSON array, or NDJSON with one message a line. The fastest way in.

    Each is `{"body": …}`, with an `id`, `delay`, `ttl` or `attempts` of its own if you like; 10,000 messages or 16 MiB
    at most. Where the content type does not say which it is, as from `curl --data-binary @file`, an array is what
    starts with `[`.
    """
    broker = request.app[CONTEXT].broker(request.match_info["queue"])
    if broker.queue.delivery == "at-most-once":
        raise Refusal("needs-record", f"queue {broker.queue.name} delivers at most once: send one by one")
    pieces, items = await _read(request)
    if not items:
        raise Refusal("malformed-batch", "there is no message in it")
    limit = request.app[HTTP].body_limit
    traced = trace_headers(request)
    meta = message.Meta(headers=traced) if traced else NO_META
    return await once(request, pieces, lambda new_id: _send(broker, items, new_id, limit, meta))


async def _read(request: web.Request) -> tuple[list[bytes], list[Item]]:
    """Return the body in pieces, and its messages. NDJSON is parsed while the rest comes in."""
    kind = content_type(request)
    if kind not in ("", FORM, *NDJSON) and not is_json(kind):
        raise Refusal("unsupported-type", f"{kind} is no batch: application/json or application/x-ndjson")
    pieces: list[bytes] = []
    lines = Lines()
    async for piece in chunks(request, LIMIT_BYTES):
        pieces.append(piece)
        if kind in NDJSON:
            lines.feed(piece)
    if kind not in NDJSON:
        body = b"".join(pieces)
        if is_json(kind) or body.lstrip()[:1] == b"[":
            await _check_array(body)
            items = parse_array(body)
            await asyncio.sleep(0)  # each step of 16 MiB takes long enough
            return pieces, items
        for piece in pieces:
            lines.feed(piece)
            await asyncio.sleep(0)
    lines.close()
    return pieces, lines.items


class Lines:
    """Parses NDJSON as it comes in: `feed` each piece, then `close`. Both raise Refusal."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._pieces: list[bytes] = []
        """The begin of a line whose end has not come yet."""
        self._line = 0

    def feed(self, piece: bytes) -> None:
        """Parse the lines that are complete with this piece."""
        end = piece.rfind(b"\n") + 1
        if end:
            self._parse(b"".join((*self._pieces, piece[:end])))
            self._pieces = []
        self._pieces.append(piece[end:])

    def close(self) -> None:
        """Parse the last line, which may lack its line feed."""
        self._parse(b"".join((*self._pieces, b"\n")))

    def _parse(self, lines: bytes) -> None:
        try:
            items = _ITEM.decode_lines(lines)
        except FAULTS:
            items = None
        line_count = lines.count(b"\n")
        if items is None or len(items) != line_count:  # a fault, or blank lines, or a value over two of them
            items = self._parse_each(lines)
        self._line += line_count
        self.items += items
        _check_count(len(self.items))

    def _parse_each(self, lines: bytes) -> list[Item]:
        items: list[Item] = []
        for number, line in enumerate(lines.split(b"\n"), self._line + 1):
            if not line.strip():
                continue
            try:
                items.append(_ITEM.decode(line))
            except FAULTS as error:
                index = len(self.items) + len(items)
                detail = f"line {number}: {_text(error)}"
                raise Refusal("malformed-batch", detail, index=index, line=number) from None
        return items


def parse_array(body: bytes) -> list[Item]:
    """Return the messages of a JSON array. Raises Refusal."""
    try:
        items = _ARRAY.decode(body)
    except FAULTS as error:
        at = _INDEX.search(str(error))
        if at is None and not isinstance(error, msgspec.ValidationError):
            raise Refusal("malformed-json", _text(error)) from None
        raise Refusal("malformed-batch", _text(error), index=int(at[1]) if at else None) from None
    _check_count(len(items))
    return items


async def _check_array(body: bytes) -> None:
    """Refuse an array of over a million messages before it is parsed, which would hold the loop for 0.2 s."""
    await asyncio.sleep(0)
    if body.count(b'"body"') <= MOST:
        return
    for share in (4, 2, 1):
        end = len(body) if share == 1 else body.rfind(b"},{", 0, len(body) // share) + 1
        await asyncio.sleep(0)
        with contextlib.suppress(*FAULTS):  # cut in two inside a message, or faulty anyway, which parse_array says
            _check_count(len(_RAW_ARRAY.decode(body if share == 1 else body[:end] + b"]")))


async def _send(broker: Broker, items: Sequence[Item], new_id: NewId, limit: int, meta: message.Meta) -> web.Response:
    messages: list[Outgoing] = []
    for start in range(0, len(items), _AT_ONCE):
        part = enumerate(items[start : start + _AT_ONCE], start)
        messages += [_outgoing(index, item, new_id, limit, meta) for index, item in part]
        await asyncio.sleep(0)
    if "full" in await broker.send_many(messages):
        raise await full(broker)
    return answer(AcceptedBatch([message.id for message in messages]), 202)


def _outgoing(index: int, item: Item, new_id: NewId, limit: int, meta: message.Meta) -> Outgoing:
    if len(item.body) > limit:
        raise Refusal("body-too-large", f"message {index}: its body is over {limit} bytes", index=index, limit=limit)
    body = bytes(item.body)
    if fault := jsontext.fault(body):
        raise Refusal("malformed-batch", f"message {index}: {fault}", index=index)
    return Outgoing(
        id=new_id() if item.id is UNSET else chosen_id(item.id),
        body=body,
        meta=meta if item.attempts is UNSET else message.Meta(headers=meta.headers, attempts=item.attempts),
        delay_ms=0 if item.delay is UNSET else item.delay.ms,
        ttl_ms=0 if item.ttl is UNSET else item.ttl.ms,
    )


def _check_count(count: int) -> None:
    if count > MOST:
        raise Refusal("body-too-large", f"over {MOST} messages", limit=MOST)


def _text(error: Exception) -> str:
    return "JSON is nested too deeply" if isinstance(error, RecursionError) else str(error)
