"""Keep the private server alive while it has users, and no longer.

Started by `embedded` as a detached script in the server's directory, with the standard library only:
`python -I -S keeper.py SOCKET SERVER_COMMAND...`. It must never hold `users.lock` except to end.

Four lock files keep the books, because the kernel drops a lock however its holder ends:

- `keeper.lock`, exclusive: a keeper lives. Inherited from whoever started it, so that there is no moment between
  the decision to start one and its lock.
- `server.lock`, exclusive: a server lives. Handed on to the server process, which outlives a killed keeper by a
  moment: two servers on the same files would destroy them.
- `users.lock`, shared: one for each user.
- `start.lock`, exclusive and short: around joining, and around the decision that nobody is left.
"""

import ctypes
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

KEEPER_LOCK = "keeper.lock"
SERVER_LOCK = "server.lock"
USERS_LOCK = "users.lock"
START_LOCK = "start.lock"
PID_FILE = "server.pid"

TICK_S = 0.2  # how long an unused server stays
STOP_S = 10.0  # the server has this long to write its files before it is killed
RETRY_S = 0.02  # between attempts to start while an older server is still ending
SETTLED_S = 10.0  # a server that lived this long is started again at once
BACKOFF_S = 5.0  # the longest pause between two starts
PR_SET_PDEATHSIG = 1
# The wheel's server has the C library's malloc. With jemalloc, which the packages of Redis and Valkey are built with, a
# message that is drained takes 5.6 us of the server's time instead of 6.7 when 100,000 are queued, 7.3 instead of 11.5
# when a million are.
JEMALLOC = "libjemalloc.so.2"
PROBE_S = 5.0


def open_lock(path: Path) -> int:
    """Return a descriptor of the lock file, made when missing; closing it gives up its lock."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int, kind: int) -> bool:
    """Take a lock (`fcntl.LOCK_EX` or `fcntl.LOCK_SH`) without waiting; False when others are in the way."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Keeper:
    """Runs `command` in the current directory until nobody holds `users.lock`."""

    def __init__(self, socket_path: str, command: Sequence[str]) -> None:
        self._socket_path, self._command = socket_path, command
        self._users_lock = open_lock(Path(USERS_LOCK))
        self._start_lock = open_lock(Path(START_LOCK))
        self._server: subprocess.Popen[bytes] | None = None
        self._start_at = self._started_at = time.monotonic()
        self._deaths = 0  # in a row, each soon after a start
        self._asked_orphan = False
        self._stopping = False
        self._alarm = self._listen_for_signals()

    def run(self) -> None:
        """Watch the server and its users until told to stop, or nobody is left; then end the server."""
        try:
            while not self._stopping and not self._nobody_left():
                if self._server is not None and self._server.poll() is not None:
                    self._after_death(self._server)
                if self._server is None and time.monotonic() >= self._start_at:
                    self._start()
                self._wait()
        finally:
            self._stop()

    def _listen_for_signals(self) -> int:
        """Return a descriptor that becomes readable when a child ends or SIGTERM arrives."""
        alarm, waker = os.pipe()
        os.set_blocking(alarm, False)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # a mask inherited from a user would reach the server too
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_stopping", True))
        return alarm

    def _nobody_left(self) -> bool:
        """Look for users. When there is none, both locks stay held, so that nobody joins a dying server.

        A joiner holds `start.lock` from before the keeper starts until the server answers, so a keeper never
        ends between its start and its first user.
        """
        if not try_lock(self._start_lock, fcntl.LOCK_EX):
            return False
        if try_lock(self._users_lock, fcntl.LOCK_EX):
            return True
        fcntl.flock(self._start_lock, fcntl.LOCK_UN)
        return False

    def _start(self) -> None:
        server_lock = open_lock(Path(SERVER_LOCK))
        try:
            if not try_lock(server_lock, fcntl.LOCK_EX):
                self._ask_orphan_to_stop()
                self._start_at = time.monotonic() + RETRY_S
                return
            self._started_at = time.monotonic()
            self._server = subprocess.Popen(  # noqa: S603 - the command is our own
                self._command,
                stdin=subprocess.DEVNULL,
                pass_fds=[server_lock],
                preexec_fn=_end_with_parent(),  # noqa: PLW1509 - this process has one thread
            )
        finally:
            os.close(server_lock)  # from here on it is held exactly as long as the server lives
        _write_pid(self._server.pid)

    def _ask_orphan_to_stop(self) -> None:
        """End a server whose keeper was killed where the kernel does not do it (macOS)."""
        if self._asked_orphan:
            return
        self._asked_orphan = True
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(self._socket_path)
                connection.sendall(b"SHUTDOWN\r\n")
                connection.recv(64)  # the end of the connection
        except OSError as error:
            _say(f"an older server does not answer: {error}")

    def _after_death(self, server: subprocess.Popen[bytes]) -> None:
        """Plan the next start: at once after a long life, else ever later. No jitter: there is one keeper."""
        _forget_pid()
        self._server = None
        _say(f"server {server.pid} ended by itself, status {server.returncode}")
        if not try_lock(self._start_lock, fcntl.LOCK_EX):
            sys.exit("somebody is joining and will start another keeper, or report this")
        fcntl.flock(self._start_lock, fcntl.LOCK_UN)
        settled = time.monotonic() - self._started_at >= SETTLED_S
        self._deaths = 1 if settled else self._deaths + 1
        pause_s = 0.0 if self._deaths == 1 else min(BACKOFF_S, 0.1 * 2 ** min(self._deaths - 1, 10))
        self._start_at = time.monotonic() + pause_s

    def _wait(self) -> None:
        """Sleep until the next look at the users, or until a signal or a due start."""
        until_start_s = self._start_at - time.monotonic() if self._server is None else TICK_S
        if select.select([self._alarm], [], [], max(0.0, min(TICK_S, until_start_s)))[0]:
            os.read(self._alarm, 4096)

    def _stop(self) -> None:
        """End the server gently: on SIGTERM it writes and syncs its append-only file."""
        _forget_pid()  # before the signal: who sees no pid takes no answer of this server for a living one
        if self._server is None:
            return
        self._server.terminate()
        try:
            self._server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            _say(f"server {self._server.pid} did not end within {STOP_S:.0f} s: killing it")
            self._server.kill()
            self._server.wait()


def preload_jemalloc(program: str) -> None:
    """Have what this process starts use jemalloc, where the machine has it and `program` runs with it."""
    if os.environ.get("LD_PRELOAD"):  # somebody's own choice
        return
    os.environ["LD_PRELOAD"] = JEMALLOC
    try:
        probe = subprocess.run([program, "--version"], capture_output=True, timeout=PROBE_S, check=False)  # noqa: S603
        works = probe.returncode == 0 and not probe.stderr  # without the library the linker says so there, and goes on
    except (OSError, subprocess.TimeoutExpired):
        works = False
    if not works:
        del os.environ["LD_PRELOAD"]


def _end_with_parent() -> Callable[[], None]:
    """Return what a new process calls so that the kernel sends it SIGTERM when this one ends. Linux only."""
    parent, prctl = os.getpid(), getattr(ctypes.CDLL(None), "prctl", None)

    def ask_kernel() -> None:
        if prctl is None:
            return
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the kernel was asked
            os._exit(1)

    return ask_kernel


def _write_pid(pid: int) -> None:
    fresh = Path(PID_FILE + ".new")
    fresh.write_text(f"{pid}\n")
    fresh.replace(PID_FILE)


def _forget_pid() -> None:
    Path(PID_FILE).unlink(missing_ok=True)


def _say(text: str) -> None:
    print(f"keeper {os.getpid()}: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the log is its stderr


def main(socket_path: str, *command: str) -> None:
    """Leave the process that started this one, and keep `command` running."""
    if os.fork():  # the starter reaps this half; the other one is nobody's child and leaves no zombie
        os._exit(0)
    os.umask(0o077)
    preload_jemalloc(command[0])
    try:
        Keeper(socket_path, command).run()
    except OSError as error:
        sys.exit(f"keeper {os.getpid()}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
