"""Every error a caller may want to treat differently, with a stable code.

Called by all layers. Text says what failed, with which value, and what to do about it.
"""

from typing import ClassVar


class MqError(Exception):
    """Root of all errors raised on purpose by mqservice."""

    code: ClassVar[str] = "error"


class ConfigError(MqError):
    """A configuration value is unknown, of the wrong type or out of range. The text names the key."""

    code = "config"


class InvalidName(MqError):
    """A queue, channel or message id has characters or a length that are not allowed."""

    code = "invalid-name"


class Unavailable(MqError):
    """Redis did not answer in time, or refused for a reason that may pass (loading, read-only, out of memory).

    What was asked may or may not have happened; every call is safe to repeat.
    """

    code = "unavailable"


class OutOfMemory(Unavailable):
    """Redis has reached its `maxmemory` and takes no new message. Nothing was kept."""

    code = "out-of-memory"


class Misconfigured(MqError):
    """Redis answers, but cannot be used as it is: wrong password, missing permission, too old a version."""

    code = "misconfigured"


class WrongType(MqError):
    """A key that should be ours holds something else, such as a string where the queue's list should be."""

    code = "wrong-type"


class EmbeddedError(MqError):
    """The private server could not be started. The text holds the end of its log."""

    code = "embedded"


class Refused(MqError):
    """Redis refused a call: what it works on is damaged, or the call is wrong. The text is Redis's own."""

    code = "refused"


class NoSuchQueue(MqError):
    """A handler or queue was named that this service does not know."""

    code = "no-such-queue"


class QueueInUse(MqError):
    """The queue cannot be deleted: somebody consumes it, or works on a message of it."""

    code = "queue-in-use"


class BadCursor(MqError):
    """A page was asked for by a cursor that no page gave out."""

    code = "bad-cursor"


class InvalidSchedule(MqError):
    """A schedule cannot be as it is said. The text names the key, its value and what is expected."""

    code = "invalid-schedule"


class QueueFull(MqError):
    """The queue has reached its `max_length`. Nothing was kept."""

    code = "queue-full"


class NotUnique(MqError):
    """An unfinished message of the queue has the same unique key. Nothing was kept."""

    code = "not-unique"


class MessageFailed(MqError):
    """A result was waited for that will not come: the message is dead, cancelled or forgotten."""

    code = "message-failed"
