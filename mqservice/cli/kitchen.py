"""`mqservice kitchen`."""

import asyncio
import atexit
import math
import signal
from typing import Literal

import click

from mqservice.cli.examples import examples
from mqservice.kitchen import Kitchen, run

_CLOSED = {
    "zh": "打烊：做了 {} 饭，吃了 {} 饭，剩下 {} 饭",
    "en": "closed: {} cooked, {} eaten, {} left over",
}


@click.command(
    epilog=examples(
        "mqservice kitchen --lang en --dishes 20 --seed 7", "mqservice kitchen --chefs 1 --eaters 4 --seconds 2"
    )
)
@click.option("--lang", type=click.Choice(["zh", "en"]), default="zh", show_default=True, help="Language of the lines.")
@click.option("--chefs", type=click.IntRange(0, 1000), default=3, show_default=True, help="How many cook.")
@click.option("--eaters", type=click.IntRange(0, 1000), default=2, show_default=True, help="How many eat.")
@click.option(
    "--capacity", type=click.IntRange(min=1), default=10, show_default=True, help="How many dishes wait at most."
)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Close after so long.")
@click.option("--dishes", type=click.IntRange(min=1), help="Cook so many in all; close when they are eaten.")
@click.option("--seed", type=int, help="The same number makes the same run again.")
def kitchen(
    lang: Literal["zh", "en"],
    chefs: int,
    eaters: int,
    capacity: int,
    seconds: float | None,
    dishes: int | None,
    seed: int | None,
) -> None:
    """Cook and eat around a bounded queue, as in the tutorial, until Ctrl-C.

    Every line tells the true size of the queue at that moment. The closing line goes to stderr.
    """
    plan = Kitchen(lang=lang, chefs=chefs, eaters=eaters, capacity=capacity, seconds=seconds, dishes=dishes, seed=seed)
    if seconds is not None and math.isnan(seconds):  # no range refuses it
        raise click.BadParameter("nan is not a time", param_hint="'--seconds'")
    if plan.waits_in_vain:
        raise click.UsageError("--dishes needs a chef and an eater, or --seconds: else the last is never eaten")
    asyncio.run(_open(plan))


async def _open(plan: Kitchen) -> None:
    """Run the kitchen; INT and TERM close it, and then the closing line is said."""
    closing = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, closing.set)
    tally = await run(plan, click.echo, closing)
    click.echo(_CLOSED[plan.lang].format(*tally), err=True)
    # All is said now: a second Ctrl-C, while Python takes itself apart, shall not spoil the exit code.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
