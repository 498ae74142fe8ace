"""What the scripts have counted for queues since their beginning, whichever processes worked on them.

Read by the metrics. Counted in the same step as what is counted happens: nothing is lost with a process.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mqservice import keys
from mqservice.config import QueueOptions
from mqservice.connections import Connections
from mqservice.errors import WrongType
from mqservice.records import number

REASONS: Final = ("failed", "rejected", "undecodable", "crashed", "expired")
"""Why a message becomes a dead letter."""

_FIELDS: Final = {
    **{event: event for event in ("sent", "done", "failed", "cancelled")},
    **{f"died:{reason}": f"dead {reason}" for reason in REASONS},
}
"""Field of `{K}:info` → its name in a tally."""

KINDS: Final = frozenset(field.partition(" ")[0] for field in _FIELDS.values())
"""The first words of those names."""


async def counters(connections: Connections, queues: Sequence[QueueOptions]) -> list[Mapping[str, int]]:
    """Return the counts of each queue by their names in a tally; 0 where a stranger's key is. 1 round trip."""

    def fill(pipeline: Any) -> None:
        for queue in queues:
            pipeline.hmget(keys.part(queue.key, "info"), list(_FIELDS))

    answers = await connections.ask(fill) if queues else []
    return [dict(zip(_FIELDS.values(), _numbers(answer), strict=True)) for answer in answers]


def _numbers(answer: Any) -> list[int]:
    return [0] * len(_FIELDS) if isinstance(answer, WrongType) else [number(value) for value in answer]
