"""How many messages a consumer claims: so many that no handler waits for Redis, and none waits long for a handler.

Used by the consumer. A script call costs Redis 70 to 100 µs beside its messages, so few large claims are what makes a
drain fast: 300 at a time, with the next ones on their way while those run, took 13 % less time than 100.
"""

_SOON_S = 0.02
"""Messages are claimed ahead when they will start within about this long."""

_LEAST = 32
"""So many of them also where `slots` is smaller."""

_MOST = 6
"""At most so many times `slots`, and only for handlers so short that even one after the other they start soon."""

_BYTES = 4 << 20
"""Beyond `slots`, no more than bodies of about so much."""

_CLAIM_MOST = 1000


class Prefetch:
    """Says how many to claim for `slots` handlers at once, by how long they have run, and on what."""

    def __init__(self, slots: int) -> None:
        self._slots, self._least = slots, max(slots, _LEAST)
        self._run_s = float("inf")
        """How long handlers run, a moving average."""
        self._bytes = 0.0
        """What bodies measure, likewise."""

    def ran(self, took_s: float, bytes_: int) -> None:
        """Learn that a handler has run for so long on a body of so many bytes."""
        self._run_s = took_s if self._run_s == float("inf") else self._run_s + (took_s - self._run_s) / 16
        self._bytes += (bytes_ - self._bytes) / 16

    def was_late(self, waited_s: float) -> None:
        """Learn that a message has waited so long: handlers that have not ended take longer than those before."""
        self._run_s = max(self._run_s, waited_s)

    def room(self, busy: int, held: int) -> int:
        """Return how many to claim, 0 for none just now: `busy` run or wait to, of `held` that are not yet settled.

        Settles under way hold claims back, so that a slow Redis is not owed ever more.
        """
        slots, ahead = self._slots, self._ahead()
        room = min(slots + ahead - busy, 3 * slots + 2 * ahead - held)
        if room <= ahead / 2:  # in few large claims
            return 0
        return min(room, max(self._least, ahead // 2), _CLAIM_MOST)

    def wants_bell(self, claimed: int, room: int) -> bool:
        """Tell whether to wait for the bell after a claim of so many: they were all there were, and no crowd.

        Where senders are quick, more have come by then: to ask the bell first cost a quarter of what was handled.
        """
        return claimed < min(room, self._least / 4)

    def _ahead(self) -> int:
        """Return how many to claim beyond the free slots."""
        slots, run_s = self._slots, max(self._run_s, 1e-6)
        side_by_side = min(self._least, slots * _SOON_S / run_s)
        one_by_one = min(_MOST * slots, _SOON_S / run_s, _BYTES / max(self._bytes, 1.0))
        return int(max(side_by_side, one_by_one))
