"""What a person sees: progress on a terminal, no ids in their hundreds, a screen that is put back."""

import os
import pty
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from tests.commands import environ, mq
from tests.processes import Served
from tests.waiting import wait_for


class Terminal:
    """A pseudo terminal and all that was written to it."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self.seen = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while piece := os.read(self._ours, 65_536):
                self.seen += piece.decode(errors="replace")
        except OSError:  # the other side is closed
            pass

    def close(self) -> None:
        os.close(self.theirs)
        self._reader.join(5)
        os.close(self._ours)


@pytest.fixture
def terminal() -> object:
    made = Terminal()
    yield made
    made.close()


@pytest.fixture
def at_terminal(served: Served, terminal: Terminal) -> Callable[..., subprocess.Popen[bytes]]:
    """Start a command whose stderr is the terminal, and whose stdin and stdout may be."""

    def begin(*args: str, stdin: int | None = None, stdout: int | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "mqservice", *args],
            env=environ(MQSERVICE_URL=served.url, TERM="xterm-256color"),
            stdin=terminal.theirs if stdin is None else stdin,
            stdout=terminal.theirs if stdout is None else stdout,
            stderr=terminal.theirs,
            start_new_session=True,
        )

    return begin


Begin = Callable[..., subprocess.Popen[bytes]]


def test_send_when_at_a_terminal_then_a_bar_and_a_summary_but_no_ids(terminal: Terminal, at_terminal: Begin) -> None:
    with at_terminal("send", "echo", stdin=subprocess.PIPE) as sending:
        assert sending.stdin is not None
        for start in (0, 1500):
            sending.stdin.write(b"".join(b"%d\n" % n for n in range(start, start + 1500)))
            sending.stdin.flush()
            wait_for(lambda: f"sent {start + 1500:,}" in terminal.seen, 10)  # noqa: B023
        sending.stdin.close()
        assert sending.wait(20) == 0
    wait_for(lambda: "sent 3,000 messages in" in terminal.seen)
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", terminal.seen)


def test_send_when_only_stdout_goes_elsewhere_then_ids_there_and_the_bar_here(
    terminal: Terminal, at_terminal: Begin
) -> None:
    with at_terminal("send", "echo", "1", "--count", "1500", stdout=subprocess.PIPE) as sending:
        out, _ = sending.communicate(timeout=20)
    assert len(out.split()) == 1500
    wait_for(lambda: "sent 1,500 messages in" in terminal.seen)
    assert "━" in terminal.seen


def test_send_when_nobody_typed_a_body_then_exit_2_and_does_not_wait(terminal: Terminal, at_terminal: Begin) -> None:
    with at_terminal("send", "echo") as sending:
        assert sending.wait(20) == 2
    wait_for(lambda: "BODY is missing" in terminal.seen)


def test_top_when_interrupted_then_the_last_look_stays_on_the_terminal(terminal: Terminal, at_terminal: Begin) -> None:
    with at_terminal("top") as looking:
        wait_for(lambda: terminal.seen.count("prodcons") >= 2, 20)
        looking.send_signal(signal.SIGINT)
        assert looking.wait(10) == 130
    *_, left = terminal.seen.split("\x1b[?1049l")
    wait_for(lambda: "prodcons" in terminal.seen.split("\x1b[?1049l")[-1])
    assert "\x1b[?1049h" in terminal.seen
    assert "Traceback" not in terminal.seen + left


def test_bench_when_at_a_terminal_then_a_bar_for_each_phase(terminal: Terminal, at_terminal: Begin) -> None:
    with at_terminal("bench", "--count", "200", "--phase", "send", stdout=subprocess.DEVNULL) as measuring:
        assert measuring.wait(30) == 0
    wait_for(lambda: "send" in terminal.seen)
    assert "100%" in terminal.seen


def test_purge_when_asked_at_a_terminal_then_the_answer_counts(
    served: Served, terminal: Terminal, at_terminal: Begin
) -> None:
    mq(served.url, "send", "asked", "1", "--count", "3")
    with at_terminal("queues", "purge", "asked", "--state", "ready", stdin=subprocess.PIPE) as purging:
        assert purging.stdin is not None
        wait_for(lambda: "Delete 3 ready messages of asked for good?" in terminal.seen, 20)
        purging.stdin.write(b"yes\n")
        purging.stdin.close()
        assert purging.wait(20) == 0


def test_commands_when_timed_then_a_list_of_queues_takes_less_than_300_ms_of_work(
    served: Served, record_property: Callable[[str, object], None]
) -> None:
    def spent_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    took_s = []
    for _ in range(5):
        before_s = spent_s()
        assert mq(served.url, "queues").returncode == 0
        took_s.append(spent_s() - before_s)
    record_property("seconds", min(took_s))
    assert min(took_s) < 0.3, took_s
