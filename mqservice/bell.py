"""The bell: how an idle consumer learns that there may be something to claim.

Used by the consumer. The bell's token says nothing but "look"; losing one costs at most `wait_s`, never a message.
So this BLPOP may be cut off at any time, which is what makes a deadline on it safe.
"""

import asyncio

from mqservice.connections import Connections
from mqservice.errors import MqError

_GRACE_S = 2.0
"""How much longer than the server's timeout we wait for its answer before the connection counts as dead."""


class Bell:
    """Waits for the token of one queue, on a connection of its own, one BLPOP at a time."""

    def __init__(self, connections: Connections, key: str, wait_s: float) -> None:
        self._connections, self._key, self._wait_s = connections, key, wait_s
        self._redis = connections.single()
        self._listening: asyncio.Task[bool] | None = None
        self._silenced = asyncio.Event()

    async def wait(self, timeout_s: float | None) -> bool:
        """Return True when the bell rang, False after `timeout_s`, one server timeout, or `silence()`.

        Raises MqError. A BLPOP that outlasts `timeout_s` goes on and is found by the next `wait`: Redis wakes
        blocked clients only ten times a second, too coarse for the next due message.
        """
        if self._silenced.is_set():
            return False
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name=f"bell {self._key}")
        silenced = asyncio.create_task(self._silenced.wait(), name=f"bell {self._key} silenced")
        try:
            await asyncio.wait({self._listening, silenced}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            silenced.cancel()
        if not self._listening.done():
            return False
        heard, self._listening = self._listening, None
        return not heard.cancelled() and heard.result()

    def silence(self) -> None:
        """End the present `wait` and all later ones at once. Works before the first and twice."""
        self._silenced.set()

    def restart(self) -> None:
        """Cut off the BLPOP under way; the next `wait` listens on a new connection."""
        if self._listening is not None:
            self._listening.cancel()

    async def aclose(self) -> None:
        """Cut off the BLPOP under way and close its connection."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
            self._listening = None
        await self._redis.aclose()

    async def _listen(self) -> bool:
        try:
            token = await self._connections.guard(
                lambda: self._redis.blpop([self._key], timeout=self._wait_s), self._wait_s + _GRACE_S
            )
        except MqError:
            # Whatever was wrong, such as a primary that has become a replica: resolve the address again.
            await self._redis.connection_pool.disconnect()
            raise
        return token is not None
