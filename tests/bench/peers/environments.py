"""Builds an environment per peer in `.cache/peers`, once: a venv, or a folder with node_modules."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.children import ROOT
from tests.bench.peers.catalogue import Peer

CACHE = ROOT / ".cache" / "peers"
DRIVERS = Path(__file__).with_name("drivers")
STAMP = "built-of.txt"
BUILD_S = 240.0


async def command(peer: Peer) -> list[str] | None:
    """Return what runs the peer's driver, its environment built; None, and a line why, when that cannot be had."""
    if not peer.requires:
        return [sys.executable, str(DRIVERS / peer.driver)]
    home = CACHE / peer.environment
    try:
        if peer.is_node:
            return await _node(peer, home)
        return await _python(peer, home)
    except (RuntimeError, TimeoutError) as error:
        print(f"skipped: {peer.name}: {error or 'its installation took too long'}", file=sys.stderr, flush=True)
        return None


async def _python(peer: Peer, home: Path) -> list[str]:
    if not _is_built(home, peer):
        shutil.rmtree(home, ignore_errors=True)
        await run([sys.executable, "-m", "venv", str(home)], BUILD_S)
        pip = [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        await run([*pip, *peer.requires], BUILD_S)
        _mark_built(home, peer)
    return [str(home / "bin" / "python"), str(DRIVERS / peer.driver)]


async def _node(peer: Peer, home: Path) -> list[str]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise RuntimeError("needs node and npm")
    if not _is_built(home, peer):
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        options = ["--prefix", str(home), "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        await run([npm, "install", *options, *peer.requires], BUILD_S)
        _mark_built(home, peer)
    # Node looks for modules beside the file that wants them.
    return [node, shutil.copy(DRIVERS / peer.driver, home)]


def _is_built(home: Path, peer: Peer) -> bool:
    stamp = home / STAMP
    return stamp.exists() and stamp.read_text() == "\n".join(peer.requires)


def _mark_built(home: Path, peer: Peer) -> None:
    (home / STAMP).write_text("\n".join(peer.requires))


async def run(words: Sequence[str], timeout_s: float) -> str:
    """Run a program to its end; return its stdout. Raises RuntimeError with the end of its stderr, TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # drivers have children of their own, which end with them
        limit=1 << 24,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if process.returncode:
        last = err.decode(errors="replace").strip().splitlines()[-8:]
        raise RuntimeError(f"{Path(words[0]).name} ended with {process.returncode}: " + " | ".join(last))
    return out.decode(errors="replace")
