"""Every Redis key, channel and name rule of mqservice.

Called by the broker and by whoever checks a name that came from outside. Touches no Redis.
"""

import re

from mqservice.errors import InvalidName

NAME_CHARS = 128
"""The longest name."""

_NAME = re.compile(rf"[A-Za-z0-9._:-]{{1,{NAME_CHARS}}}")
_PATTERN = re.compile(rf"[A-Za-z0-9._:*-]{{1,{NAME_CHARS}}}")

RESERVED = "mq:"
"""Redis channels that begin so are ours: nobody outside may publish on them or follow them."""

QUEUES = "{mq}:queues"
"""Set of the names of all queues that any process has served or sent to. With braces, as no queue's list may be."""

SCHEDULES = "{mq}:schedules"
"""Set of the names of all schedules. With braces, as no queue's list may be called; the scripts derive the rest."""

QUEUE_CHANNELS = "mq:queue:"
"""In front of a list key: `queue_channel`."""

PROCESSES = "{mq}:processes"
"""Zset of the names of all processes that run. `scripts/report.lua` derives the keys of their reports."""

SESSION_KEY = "{mq}:session-key"
"""String: what signs the cookies of sessions."""


def is_name(name: str) -> bool:
    """Tell whether a queue, channel or message may be called so."""
    return _NAME.fullmatch(name) is not None


def valid_name(name: str, what: str = "queue") -> str:
    """Return `name`, or raise InvalidName. One rule for queues, channels and message ids."""
    if not is_name(name):
        raise InvalidName(f"{what} {name[:140]!r} is not a name: 1 to 128 of A-Z a-z 0-9 . _ : -")
    return name


def valid_pattern(name: str, what: str = "channel") -> str:
    """Return `name`, which may have `*` for any text, or raise InvalidName."""
    if not _PATTERN.fullmatch(name):
        raise InvalidName(f"{what} {name[:140]!r} is not a name: 1 to 128 of A-Z a-z 0-9 . _ : - and *")
    return name


def ready(queue: str) -> str:
    """List of ready messages, K of the scripts, for a queue that configures no key of its own."""
    return f"mq:{queue}"


def record(list_key: str, message_id: str) -> str:
    """Hash of one message. `scripts/shared.lua` derives the same."""
    return f"{{{list_key}}}:m:{message_id}"


def listed_record(list_key: str, message_id: str | bytes) -> str | bytes:
    """Hash of one message, also of an id that is no text, which a stranger may have listed."""
    if isinstance(message_id, str):
        return record(list_key, message_id)
    return record(list_key, "").encode() + message_id


def part(list_key: str, name: str) -> str:
    """Any other key of a queue; `scripts/shared.lua` has the list."""
    return f"{{{list_key}}}:{name}"


def process_channel(process: str) -> str:
    """Channel on which scripts tell one process what concerns it."""
    return f"mq:process:{process}"


def channel_history(channel: str) -> str:
    """Stream of what was published lately on a Redis channel; also the channel on which the ids are told."""
    return f"mq:channel:{channel}"


def queue_channel(list_key: str) -> str:
    """Channel on which scripts tell what becomes of a queue's messages while somebody watches."""
    return f"{QUEUE_CHANNELS}{list_key}"


def report(process: str) -> str:
    """String, the latest report of one process. `scripts/report.lua` derives the same."""
    return f"{PROCESSES}:{process}"


def totals() -> str:
    """Hash of what all processes have counted. `scripts/report.lua` derives the same."""
    return f"{PROCESSES}:totals"


def total_names() -> str:
    """Set of the queues that are told apart in it. `scripts/report.lua` derives the same."""
    return f"{PROCESSES}:names"


def schedule(name: str) -> str:
    """Hash of one schedule. `scripts/schedule_put.lua` derives the same."""
    return f"{SCHEDULES}:s:{name}"


def schedule_changes() -> str:
    """Hash that tells whether any schedule has changed."""
    return f"{SCHEDULES}:changes"
