"""The Lua scripts, one file per verb, each with a header that names its keys, arguments and answer.

Loaded by the broker. `shared.lua` is put in front of each: there is no other way to share code between scripts
that Redis 7 and Valkey 7.2 both know without leaving a library behind on the user's server.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Script:
    """One script: its source and the SHA-1 under which Redis caches it."""

    name: str
    source: str
    sha: str


def _load(name: str, *, when_full: bool) -> Script:
    folder = files(__package__)
    flags = " flags=allow-oom" if when_full else ""
    shared = folder.joinpath("shared.lua").read_text("utf-8")
    verb = folder.joinpath(f"{name}.lua").read_text("utf-8")
    # A function, so that whichever `return` it ends with, those who watch the queue are told.
    wrapped = f"local function verb()\n{verb}\nend\nlocal answer = verb()\ntell_watchers()\nreturn answer"
    source = f"#!lua{flags}\n{shared}\n{wrapped}"
    digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, source, digest)


REGISTER = _load("register", when_full=True)
SEND = _load("send", when_full=False)
PUBLISH = _load("publish", when_full=False)
PUSH = _load("push", when_full=False)
# A full Redis must still drain, or nothing ever makes room.
CLAIM = _load("claim", when_full=True)
RENEW = _load("renew", when_full=True)
SETTLE = _load("settle", when_full=True)
RELEASE = _load("release", when_full=True)
CANCEL = _load("cancel", when_full=True)
REPLAY = _load("replay", when_full=True)
PURGE = _load("purge", when_full=True)
DELETE = _load("delete", when_full=True)
SWEEP = _load("sweep", when_full=True)
LOOK = _load("look", when_full=True)
WATCH = _load("watch", when_full=True)
PROGRESS = _load("progress", when_full=True)
WATCH_QUEUE = _load("watch_queue", when_full=True)
SCHEDULE_PUT = _load("schedule_put", when_full=True)  # of the configuration, at start
SCHEDULE_DELETE = _load("schedule_delete", when_full=True)
SCHEDULE_TAKE = _load("schedule_take", when_full=True)
SCHEDULE_MARK = _load("schedule_mark", when_full=True)
# A full Redis is when people look.
REPORT = _load("report", when_full=True)
RUNS = _load("runs", when_full=True)
SAMPLE = _load("sample", when_full=True)
ALL = (
    *(REGISTER, SEND, PUSH, CLAIM, RENEW, SETTLE, RELEASE, CANCEL, REPLAY, PURGE, DELETE, SWEEP),
    *(LOOK, WATCH, PROGRESS),
    *(SCHEDULE_PUT, SCHEDULE_DELETE, SCHEDULE_TAKE, SCHEDULE_MARK),
    *(WATCH_QUEUE, PUBLISH, REPORT, RUNS, SAMPLE),
)
