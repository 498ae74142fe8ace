"""Processes of ours that consume, each of which can be ended and replaced."""

import asyncio
import signal
from contextlib import ExitStack

from tests.chaos.ledger import Ledger
from tests.chaos.load import process
from tests.processes import Served


class Fleet:
    """The processes that consume behind `url`, oldest first. Whatever is left is killed when `stack` ends."""

    def __init__(self, url: str, ledger: Ledger, stack: ExitStack, **environ: str) -> None:
        self._url, self._ledger, self._stack, self._environ = url, ledger, stack, environ
        self.members: list[Served] = []

    async def add(self) -> Served:
        """Start one more, and wait until it is up."""
        served = self._stack.enter_context(process(self._url, self._ledger, **self._environ))
        await asyncio.to_thread(served.started)
        self.members.append(served)
        return served

    async def end(self, number: signal.Signals) -> Served:
        """Send a signal to the oldest and wait for its end."""
        served = self.members.pop(0)
        served.signal(number)
        await asyncio.to_thread(served.exit_code, 40)
        return served
