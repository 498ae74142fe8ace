"""What was acknowledged, what ran, what Redis holds: and whether that adds up.

Handlers write their runs to a file, which no fault of Redis touches and no SIGKILL takes back; see `app`.
"""

import itertools
import json
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import redis

MARK = "\0mq:"
STATES = ("ready", "active", "scheduled", "dead", "done", "cancelled")


class Notes:
    """Appends lines to the ledger's file: `start n` and `end n`, each with the pid and the time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def write(self, verb: str, n: int) -> None:
        """Append one line in one write, so that lines of many processes never mix."""
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # The monotonic clock is the machine's, the same in all its processes.
        os.write(self._file, f"{verb} {n} {os.getpid()} {time.monotonic():.6f}\n".encode())


@dataclass(frozen=True)
class Note:
    """One line."""

    verb: str
    n: int
    pid: int
    at: float


@dataclass(frozen=True)
class Balance:
    """The books of one queue, closed."""

    acknowledged: int
    lost: list[int]
    """Acknowledged, and neither handled nor anywhere in Redis."""
    twice: int
    """Runs that began although an earlier run of the same message had begun, beyond those wished for."""
    counts: dict[str, int]
    sent: int

    @property
    def sum_holds(self) -> bool:
        """sent = ready + active + scheduled + dead + done + cancelled."""
        return self.sent == sum(self.counts.values())


class Ledger:
    """The books of one queue. `acknowledge` may be called from any thread."""

    def __init__(self, path: Path, queue: str = "work") -> None:
        self.path, self.queue, self.key = path, queue, f"mq:{queue}"
        self.acknowledged: Counter[int] = Counter()
        self._lock = threading.Lock()
        path.touch()

    def acknowledge(self, *numbers: int) -> None:
        """Note messages of which the sender has been told that Redis has them."""
        with self._lock:
            self.acknowledged.update(numbers)

    def notes(self) -> list[Note]:
        """Return all that the handlers have written."""
        lines = self.path.read_text().splitlines()
        return [
            Note(verb, int(n), int(pid), float(at)) for verb, n, pid, at in (line.split(" ") for line in lines if line)
        ]

    def started(self) -> Counter[int]:
        """Return how often each message was begun."""
        return Counter(note.n for note in self.notes() if note.verb == "start")

    def handled(self) -> Counter[int]:
        """Return how often each message was handled to its end."""
        return Counter(note.n for note in self.notes() if note.verb == "end")

    def handled_count(self) -> int:
        """Return how many runs came to their end."""
        return self.path.read_bytes().count(b"end ")

    @property
    def size(self) -> int:
        """How much the handlers have written, in bytes."""
        return self.path.stat().st_size

    def longest_silence_s(self, since: float, until: float) -> float:
        """Return the longest time between two notes from `since` to `until`, by the monotonic clock."""
        moments = [since, *sorted(note.at for note in self.notes() if since <= note.at <= until), until]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    def counts(self, client: redis.Redis) -> dict[str, int]:
        """Return how many messages are in each state, and `sent`."""
        with client.pipeline(transaction=True) as pipeline:
            pipeline.llen(self.key)
            for state in ("active", "scheduled", "dead"):
                pipeline.zcard(f"{{{self.key}}}:{state}")
            pipeline.hgetall(f"{{{self.key}}}:info")
            ready, active, scheduled, dead, info = pipeline.execute()
        tombstones = int(info.get("tombstones", 0))
        ended = {state: int(info.get(state, 0)) for state in ("done", "cancelled")}
        held = {"ready": ready - tombstones, "active": active, "scheduled": scheduled, "dead": dead}
        return {**held, **ended, "sent": int(info.get("sent", 0))}

    def balance(self, client: redis.Redis, runs_wished: Counter[int] | None = None) -> Balance:
        """Close the books. `runs_wished`: messages that are to run more than once, such as those told to fail."""
        counts = self.counts(client)
        sent = counts.pop("sent")
        # A raw body counts as sent once it is adopted.
        sent += sum(1 for entry in client.lrange(self.key, 0, -1) if not entry.startswith(MARK))
        where = self.handled() + self._held(client)
        lost = sorted((self.acknowledged - where).elements())
        wished = runs_wished or Counter()
        twice = sum(max(0, runs - wished.get(n, 1)) for n, runs in self.started().items())
        return Balance(self.acknowledged.total(), lost, twice, counts, sent)

    def _held(self, client: redis.Redis) -> Counter[int]:
        """Return the bodies of all messages that have not been handled: ready, active, scheduled, dead, cancelled."""
        bodies = []
        ids = []
        for entry in client.lrange(self.key, 0, -1):
            (ids if entry.startswith(MARK) else bodies).append(entry.removeprefix(MARK))
        for state in ("active", "scheduled", "dead"):
            ids += client.zrange(f"{{{self.key}}}:{state}", 0, -1)
        ids += client.lrange(f"{{{self.key}}}:cancelled", 0, -1)
        for start in range(0, len(ids), 1000):
            with client.pipeline(transaction=False) as pipeline:
                for message_id in dict.fromkeys(ids[start : start + 1000]):
                    pipeline.hget(f"{{{self.key}}}:m:{message_id}", "body")
                bodies += [body for body in pipeline.execute() if body is not None]
        return Counter(number(body) for body in bodies)


def number(body: str | bytes) -> int:
    """Return the number of a body: itself, or its field `n`."""
    value = json.loads(body)
    return int(value["n"] if isinstance(value, dict) else value)
