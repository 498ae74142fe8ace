"""A `mqservice serve` as a child process, which Ctrl-C reaches through its parent only."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn


def start(arguments: Sequence[str], *, quiet: bool = False) -> subprocess.Popen[bytes]:
    """Start `mqservice serve`; `quiet`: what its handlers print is dropped."""
    return subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-m", "mqservice", "serve", *arguments],
        stdout=subprocess.DEVNULL if quiet else None,
        # A session of its own: a Ctrl-C that reached it beside our TERM would be its second signal, and cut the drain.
        start_new_session=True,
    )


def end(child: subprocess.Popen[bytes]) -> int:
    """Let a child drain and return its exit code; Ctrl-C meanwhile makes it release at once."""
    while child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait()
        except KeyboardInterrupt:
            continue
    return child.returncode


def term_as_interrupt() -> None:
    """Let TERM end this process as Ctrl-C does: with its child."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
