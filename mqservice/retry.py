"""What a handler may raise to steer its message, and how long to wait before trying again.

Used by handlers (Retry, Reject), the executor and every loop that outlives a broken Redis (Backoff).
"""

import random

MOST_S = 365 * 24 * 3600
"""Nothing is put off for longer than a year."""


class Retry(Exception):
    """Raised by a handler: not an error; try again after `delay` seconds. Costs an attempt.

    `delay=None` means the queue's usual delay.
    """

    def __init__(self, delay: float | None = None) -> None:
        super().__init__("asked to be tried again")
        self.delay = delay

    @property
    def delay_ms(self) -> int | None:
        """The delay in ms. Raises ValueError when it is not a number of seconds from 0 to a year."""
        if self.delay is None:
            return None
        if not isinstance(self.delay, (int, float)) or not 0 <= self.delay <= MOST_S:
            raise ValueError(f"Retry(delay={self.delay!r}): expected seconds from 0 to {MOST_S}")
        return int(self.delay * 1000)


class Reject(Exception):
    """Raised by a handler: the message is dead at once, for this reason."""

    def __init__(self, reason: str = "rejected by the handler") -> None:
        super().__init__(reason)
        self.reason = reason


def attempt_delay_ms(failures: int, first_s: float = 2.0, most_s: float = 3600.0) -> int:
    """Return the wait after the `failures`-th failed attempt: min(most, first·2^(n-1)) s, half of it jitter."""
    full_s = min(most_s, first_s * 2.0 ** min(failures - 1, 30))
    return int(full_s * (500 + 500 * random.random()))  # noqa: S311 - spreads load, hides nothing


class Backoff:
    """Waits of a loop whose Redis is away: full jitter, from at most 0.1 s, doubling, to at most 5 s."""

    def __init__(self, first_s: float = 0.1, most_s: float = 5.0) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._failures = 0

    def next_s(self) -> float:
        """Return the next wait in seconds."""
        ceiling = min(self._most_s, self._first_s * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return ceiling * random.random()  # noqa: S311

    def reset(self) -> None:
        """Start again from the shortest wait."""
        self._failures = 0
