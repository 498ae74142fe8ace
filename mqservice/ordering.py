"""Messages of one channel in order, each once, while some come live and some are still read from the history.

Used by `fanout`, for the process and for each client. Plain data.
"""

from collections.abc import Callable

from mqservice.channel_history import EventId

MOST_HELD = 1000

Forward = Callable[[EventId | None, bytes], None]
"""Called with each message, as it is sent to clients; None: one that was never in a history."""


class Ordering:
    """Hands messages to `forward`: at once, or while it is behind after those of the history."""

    def __init__(self, forward: Forward, last: EventId | None = None) -> None:
        self._forward = forward
        self.last = last
        """The latest that was handed on; None: none yet."""
        self._held: list[tuple[EventId | None, bytes]] | None = None
        self._dropped = False

    @property
    def is_behind(self) -> bool:
        """The history is still to be read."""
        return self._held is not None

    def hold(self) -> None:
        """Hold back what comes live until `release`."""
        if self._held is None:
            self._held = []

    def receive(self, event_id: EventId | None, encoded: bytes) -> None:
        """Take a message that comes live."""
        if self._held is None:
            self.put(event_id, encoded)
        elif len(self._held) < MOST_HELD:
            self._held.append((event_id, encoded))
        else:
            self._dropped = True

    def put(self, event_id: EventId | None, encoded: bytes) -> None:
        """Hand on a message, unless it is known."""
        if event_id is not None:
            if self.last is not None and event_id <= self.last:
                return
            self.last = event_id
        self._forward(event_id, encoded)

    def release(self) -> bool:
        """Hand on what was held back, the history having been read. False: too much was, read on."""
        if self._dropped:
            self._dropped = False
            # What has an id is in the history; of the rest that is dropped, nobody was promised anything.
            self._held = []
            return False
        held, self._held = self._held or [], None
        for event_id, encoded in held:
            self.put(event_id, encoded)
        return True
