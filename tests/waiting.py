"""Waiting on conditions: the only way a test waits."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Wait until `condition()` is true; fail after `timeout_s`."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {timeout_s} s"
        await asyncio.sleep(0.005)


async def until_async(condition: Callable[[], Awaitable[object]], timeout_s: float = 5.0) -> None:
    """Wait until `await condition()` is true; fail after `timeout_s`."""
    give_up_at = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < give_up_at, f"not within {timeout_s} s"
        await asyncio.sleep(0.005)


def wait_for(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Wait, outside of a loop, until `condition()` is true; fail after `timeout_s`."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {timeout_s} s"
        time.sleep(0.005)
