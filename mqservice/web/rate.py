"""How many requests each may make: a token bucket per key, kept as one moment each."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Final

_MOST: Final = 10_000
"""Keys that are remembered. Of more, those seen least recently start anew."""


class Limiter:
    """Lets `burst` requests of a key through at once, and `rate_per_s` in the long run."""

    def __init__(
        self, rate_per_s: float, burst: int, most: int = _MOST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate_per_s = rate_per_s
        self._period_s, self._burst_s = 1 / rate_per_s, burst / rate_per_s
        self._most, self._clock = most, clock
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """Key → when its bucket is full again; each request moves it on by a period."""

    def take(self, key: str) -> float:
        """Return 0 and count a request, or return after how many seconds there is room for one."""
        now, buckets = self._clock(), self._full_at
        full_at = max(buckets.get(key, now), now) + self._period_s
        late_s = full_at - now - self._burst_s
        if late_s > 1e-9:  # what doubles cannot tell apart is no delay
            return late_s
        buckets[key] = full_at
        buckets.move_to_end(key)
        if len(buckets) > self._most:
            buckets.popitem(last=False)
        return 0.0


@lru_cache(maxsize=4096)
def address_key(address: str | None) -> str:
    """Return the key of an address: of IPv6 its /64, since one customer has at least that many."""
    text = (address or "").partition("%")[0]
    if ":" not in text:
        return text
    return str(ipaddress.IPv6Network((text, 64), strict=False))
