"""The tutorial's first program: chefs and eaters around one bounded queue, on one event loop.

Called by the command `kitchen`. Knows nothing of Redis. Each line's number is the queue's true size, because nothing
awaits between a put or get and its line; keep it so.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from typing import Literal, NamedTuple

_COOKED = {
    "zh": "厨师 {} 做了 {} 饭 --- 还剩 {} 饭没卖完",
    "en": "chef {} cooked dish {} --- {} still unsold",
}
_EATEN = {
    "zh": "吃货{} 吃了 {} 饭 --- 还有 {} 饭可以吃",  # no space after 吃货, as in the tutorial
    "en": "eater {} ate dish {} --- {} left to eat",
}


@dataclass(frozen=True)
class Kitchen:
    """Who works, how many dishes (0 to 8) wait at most, and when it closes; the defaults are the tutorial's.

    `seconds` and `dishes` None: open until told to close. `dishes`: how many are cooked in all; it closes when the last
    is eaten. `seed` None: another run each time. `pause_s`: everybody rests between 0 and this after each dish.
    """

    lang: Literal["zh", "en"] = "zh"
    chefs: int = 3
    eaters: int = 2
    capacity: int = 10
    seconds: float | None = None
    dishes: int | None = None
    seed: int | None = None
    pause_s: float = 1.0

    @property
    def waits_in_vain(self) -> bool:
        """Whether it would wait for its last dish for ever: nobody cooks, or nobody eats, and no time is set."""
        return self.dishes is not None and self.seconds is None and not (self.chefs and self.eaters)


class Tally(NamedTuple):
    """What a run came to; `cooked == eaten + left`, and each was counted by itself."""

    cooked: int
    eaten: int
    left: int


async def run(kitchen: Kitchen, out: Callable[[str], None], closing: asyncio.Event | None = None) -> Tally:
    """Open the kitchen, pass each line to `out`, and return the tally once everybody has gone home.

    Set `closing` to close early, also before the start; it is set here when the last dish is eaten. What `out` raises
    ends the run and is raised here.
    """
    shift = _Shift(kitchen, out, closing or asyncio.Event())
    try:
        async with asyncio.TaskGroup() as group:
            staff = [group.create_task(work, name=name) for name, work in shift.staff()]
            with suppress(TimeoutError):
                async with asyncio.timeout(kitchen.seconds):
                    await shift.closing.wait()
            for person in staff:
                person.cancel()
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return shift.tally()


class _Shift:
    """One opening of the kitchen."""

    def __init__(self, kitchen: Kitchen, out: Callable[[str], None], closing: asyncio.Event) -> None:
        self.closing = closing
        self._kitchen = kitchen
        self._out = out
        self._queue: asyncio.Queue[int] = asyncio.Queue(kitchen.capacity)
        # Shared by the chefs: each takes an order before cooking, so that together they never cook one too many.
        self._orders = repeat(None) if kitchen.dishes is None else repeat(None, kitchen.dishes)
        self._planned_s = asyncio.get_running_loop().time()
        self._cooked = 0
        self._eaten = 0

    def staff(self) -> Iterator[tuple[str, Coroutine[None, None, None]]]:
        """Name each person, chefs first, and give each dice of their own: nobody's choices hang on who came first."""
        dice = random.Random(self._kitchen.seed)  # noqa: S311 - dishes and naps, no secrets; must be repeatable
        for number in range(1, self._kitchen.chefs + self._kitchen.eaters + 1):
            work = self._cook if number <= self._kitchen.chefs else self._eat
            name = f"Thread-{number}"
            own_dice = random.Random(dice.getrandbits(64))  # noqa: S311 - as above
            yield name, work(name, own_dice)

    def tally(self) -> Tally:
        return Tally(self._cooked, self._eaten, self._queue.qsize())

    async def _cook(self, name: str, dice: random.Random) -> None:
        for _ in self._orders:
            dish = dice.randrange(9)
            # A put that had to wait still adds its dish in this task's own step and returns without another await,
            # as does a get: from here to the line no one else runs, and a cancelled put or get has moved nothing.
            await self._queue.put(dish)
            self._cooked += 1
            self._out(_COOKED[self._kitchen.lang].format(name, dish, self._queue.qsize()))
            await self._pause(dice)

    async def _eat(self, name: str, dice: random.Random) -> None:
        while True:
            dish = await self._queue.get()
            self._eaten += 1
            self._out(_EATEN[self._kitchen.lang].format(name, dish, self._queue.qsize()))
            if self._eaten == self._kitchen.dishes:
                self.closing.set()
            await self._pause(dice)

    async def _pause(self, dice: random.Random) -> None:
        """Rest until a planned moment, not for a while from now.

        Timers are a little late each time; added up, that would soon change who comes first, and the same seed would
        not make the same run.
        """
        wake_at_s = self._planned_s + dice.random() * self._kitchen.pause_s
        await asyncio.sleep(wake_at_s - asyncio.get_running_loop().time())
        self._planned_s = max(self._planned_s, wake_at_s)
