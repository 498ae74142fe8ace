"""Fixtures of the chaos tests, and the table that they print: one row a fault, with its bound and what was measured."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.ledger import Ledger
from tests.chaos.matrix import Row, notes, table
from tests.chaos.proxy import Proxy
from tests.chaos.servers import Valkey, temporary


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server of this test's own, to be mistreated."""
    directory = temporary("chaos")
    with Valkey(directory) as server:
        yield server
    shutil.rmtree(directory)


@pytest.fixture
def proxy(valkey: Valkey) -> Iterator[Proxy]:
    """A proxy in front of that server."""
    with Proxy(valkey.socket) as proxy:
        yield proxy


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """The books of the queue `work`."""
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def row(record_property: Callable[[str, object], None]) -> Iterator[Callable[..., Row]]:
    """Return what opens a row of the table; at the end of the test each row's figures are held against its bounds."""
    rows: list[Row] = []

    def open_row(fault: str, bound_s: float, *, may_run_twice: int = 0) -> Row:
        rows.append(Row(fault, bound_s, may_run_twice=may_run_twice))
        return rows[-1]

    yield open_row
    for row in rows:
        record_property("row", row.figures())
    for row in rows:
        row.check()


@pytest.fixture(autouse=True)
async def tasks_told() -> AsyncIterator[None]:
    """Name the tasks that are left, for the report of a test that `no_task_left` then fails."""
    yield
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        print("left:", task)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of what ran."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    ended = [report for report in reports if getattr(report, "when", "") == "teardown"]
    told = [(key, value) for report in ended for key, value in report.user_properties]
    for line in [
        *table([value for key, value in told if key == "row"]),
        *notes(value for key, value in told if key == "note"),
    ]:
        terminalreporter.write_line(line)
