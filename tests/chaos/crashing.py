"""Points at which a process of ours can be killed, between any two steps.

CHAOS_CRASH="after claim" kills it the first time that the point is reached, "after claim:3" the third time. Points
are `before X` and `after X` for every script X of the broker (Redis has not run it; Redis has run it, and the answer
has arrived), and `in handler`. "in handler:7" is the middle of a batch. The kill is SIGKILL: nothing is tidied up.
"""

import os
import signal
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mqservice.connections import Connections
from mqservice.scripts import Script

_wish, _, _nth = os.environ.get("CHAOS_CRASH", "").partition(":")
_reached: Counter[str] = Counter()


def reach(point: str) -> None:
    """Say that the process is at this point; it ends here when that is wished for."""
    if point == _wish:
        _reached[point] += 1
        if _reached[point] == int(_nth or 1):
            os.kill(os.getpid(), signal.SIGKILL)


if _wish:
    _run = Connections.run

    async def _run_between_points(
        self: Connections, script: Script, key: str, args: Sequence[Any], *more: Any, **options: Any
    ) -> Any:
        reach(f"before {script.name}")
        answer = await _run(self, script, key, args, *more, **options)
        reach(f"after {script.name}")
        return answer

    Connections.run = _run_between_points  # type: ignore[method-assign]
