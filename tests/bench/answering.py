"""The other side of `children`: the loop of a process that does what its stdin says, one JSON line at a time."""

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Verb = Callable[..., Awaitable[dict[str, Any]]]


async def answer(verbs: Mapping[str, Verb], hello: dict[str, Any]) -> None:
    """Say hello, then answer until stdin ends."""
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say(hello)
    while line := await reader.readline():
        wish = json.loads(line)
        try:
            say(await verbs[wish.pop("do")](**wish))
        except Exception:  # noqa: BLE001 - told to who asked
            say({"error": traceback.format_exc()})


def say(fact: dict[str, Any]) -> None:
    print(json.dumps(fact), flush=True)
