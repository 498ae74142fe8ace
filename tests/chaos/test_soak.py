"""A minute of `make soak`."""

from collections.abc import Callable

from tests.chaos.matrix import Row
from tests.chaos.servers import temporary
from tests.chaos.soak import SILENCE_S, soak

SECONDS = 60.0
SEED = 20


async def test_service_when_soaked_in_random_faults_for_a_minute_then_nothing_is_lost(
    row: Callable[..., Row], record_property: Callable[[str, object], None]
) -> None:
    figures = row(f"mixed load and random faults, {SECONDS:g} s: longest silence", SILENCE_S)
    summary = await soak(temporary("soak"), SECONDS, SEED)
    figures.may_run_twice = summary.may_run_twice
    figures.going_again(summary.longest_silence_s)
    for line in summary.lines():
        record_property("note", line)
    figures.close(summary.balance)
