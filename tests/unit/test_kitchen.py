"""The kitchen: its lines, its numbers, and how it closes."""

import asyncio
import re
import signal
import subprocess
import sys
from typing import Literal, NamedTuple

import pytest
from click.testing import CliRunner

from mqservice.cli.kitchen import kitchen as command
from mqservice.kitchen import Kitchen, Tally, run

LINE = {
    "zh": re.compile(
        r"(?:厨师 (?P<chef>Thread-\d+) 做了 (?P<cooked>[0-8]) 饭 --- 还剩 (?P<unsold>\d+) 饭没卖完"
        r"|吃货(?P<eater>Thread-\d+) 吃了 (?P<eaten>[0-8]) 饭 --- 还有 (?P<left>\d+) 饭可以吃)"
    ),
    "en": re.compile(
        r"(?:chef (?P<chef>Thread-\d+) cooked dish (?P<cooked>[0-8]) --- (?P<unsold>\d+) still unsold"
        r"|eater (?P<eater>Thread-\d+) ate dish (?P<eaten>[0-8]) --- (?P<left>\d+) left to eat)"
    ),
}


class Step(NamedTuple):
    """One line, read back. `change` is +1 for a chef's, -1 for an eater's."""

    name: str
    change: int
    dish: int
    size: int


def read(line: str, lang: Literal["zh", "en"] = "zh") -> Step:
    found = LINE[lang].fullmatch(line)
    assert found, line
    if found["chef"]:
        return Step(found["chef"], 1, int(found["cooked"]), int(found["unsold"]))
    return Step(found["eater"], -1, int(found["eaten"]), int(found["left"]))


def assert_true_sizes(steps: list[Step], capacity: int) -> None:
    """Replay the lines: each size follows from those before, and each dish eaten is the oldest cooked."""
    dishes: list[int] = []
    for step in steps:
        if step.change == 1:
            dishes.append(step.dish)
        else:
            assert step.dish == dishes.pop(0)
        assert step.size == len(dishes) <= capacity


async def lines_of(kitchen: Kitchen) -> list[str]:
    lines: list[str] = []
    await run(kitchen, lines.append)
    return lines


@pytest.mark.parametrize("capacity", [1, 2, 10])
@pytest.mark.parametrize(("chefs", "eaters"), [(3, 2), (1, 1), (12, 1), (1, 12), (7, 7)])
async def test_printed_sizes_when_replayed_then_are_the_true_ones(chefs: int, eaters: int, capacity: int) -> None:
    kitchen = Kitchen(chefs=chefs, eaters=eaters, capacity=capacity, dishes=200, seed=1, pause_s=0)
    steps = [read(line) for line in await lines_of(kitchen)]
    assert_true_sizes(steps, capacity)
    assert len(steps) == 400


@pytest.mark.parametrize("capacity", [1, 2, 10])
async def test_printed_sizes_when_people_pause_then_are_the_true_ones(capacity: int) -> None:
    lines = await lines_of(Kitchen(capacity=capacity, dishes=60, seed=2, pause_s=0.003))
    assert_true_sizes([read(line) for line in lines], capacity)


async def test_printed_size_when_a_chef_had_to_wait_then_is_full_again_at_once() -> None:
    steps = [read(line) for line in await lines_of(Kitchen(chefs=2, eaters=1, capacity=1, dishes=20, pause_s=0))]
    assert {(step.change, step.size) for step in steps} == {(1, 1), (-1, 0)}


async def test_lines_when_chinese_then_are_the_tutorials_word_for_word() -> None:
    lines = await lines_of(Kitchen(chefs=1, eaters=1, dishes=1, seed=3, pause_s=0))
    dish = read(lines[0]).dish
    assert lines == [
        f"厨师 Thread-1 做了 {dish} 饭 --- 还剩 1 饭没卖完",
        f"吃货Thread-2 吃了 {dish} 饭 --- 还有 0 饭可以吃",
    ]


async def test_lines_when_english_then_say_the_same() -> None:
    chinese = await lines_of(Kitchen(dishes=30, seed=4, pause_s=0))
    english = await lines_of(Kitchen(dishes=30, seed=4, pause_s=0, lang="en"))
    assert [read(line) for line in chinese] == [read(line, "en") for line in english]


async def test_names_when_three_cook_and_two_eat_then_are_the_tutorials() -> None:
    steps = [read(line) for line in await lines_of(Kitchen(dishes=50, pause_s=0))]
    assert {step.name for step in steps if step.change == 1} == {"Thread-1", "Thread-2", "Thread-3"}
    assert {step.name for step in steps if step.change == -1} == {"Thread-4", "Thread-5"}


async def test_dishes_when_random_then_are_all_of_0_to_8() -> None:
    steps = [read(line) for line in await lines_of(Kitchen(dishes=300, seed=5, pause_s=0))]
    assert {step.dish for step in steps} == set(range(9))


@pytest.mark.parametrize("dishes", [1, 2, 37])
async def test_run_when_dishes_are_given_then_ends_with_all_eaten(dishes: int) -> None:
    assert await run(Kitchen(dishes=dishes, pause_s=0), lambda _: None) == Tally(dishes, dishes, 0)


async def test_run_when_the_seed_is_the_same_then_is_the_same() -> None:
    kitchen = Kitchen(dishes=100, seed=6, pause_s=0)
    assert await lines_of(kitchen) == await lines_of(kitchen)


async def test_run_when_the_seed_is_another_then_differs() -> None:
    assert await lines_of(Kitchen(dishes=100, seed=6, pause_s=0)) != await lines_of(
        Kitchen(dishes=100, seed=7, pause_s=0)
    )


async def test_choices_when_others_are_faster_then_stay_each_ones_own() -> None:
    few = [read(line) for line in await lines_of(Kitchen(dishes=60, seed=8, pause_s=0, eaters=1))]
    many = [read(line) for line in await lines_of(Kitchen(dishes=60, seed=8, pause_s=0.002, eaters=9))]
    for chef in ("Thread-1", "Thread-2", "Thread-3"):
        pairs = zip(
            [step.dish for step in few if step.name == chef and step.change == 1],
            [step.dish for step in many if step.name == chef and step.change == 1],
            strict=False,
        )
        assert all(one == other for one, other in pairs)


async def test_run_when_seconds_are_over_then_ends_and_adds_up() -> None:
    lines: list[str] = []
    cooked, eaten, left = await run(Kitchen(seconds=0.05, pause_s=0), lines.append)
    assert cooked == eaten + left == sum(read(line).change == 1 for line in lines)
    assert cooked > 0


async def test_run_when_nobody_eats_then_stops_at_capacity_until_closed() -> None:
    closing = asyncio.Event()
    lines: list[str] = []

    def out(line: str) -> None:
        lines.append(line)
        if len(lines) == 3:
            closing.set()

    assert await run(Kitchen(eaters=0, capacity=3, pause_s=0), out, closing) == Tally(3, 0, 3)
    assert [read(line).size for line in lines] == [1, 2, 3]


@pytest.mark.parametrize("moment", range(1, 12))
async def test_run_when_closed_at_any_moment_then_adds_up(moment: int) -> None:
    closing = asyncio.Event()
    lines: list[str] = []

    def out(line: str) -> None:
        lines.append(line)
        if len(lines) == moment:
            closing.set()

    cooked, eaten, left = await run(Kitchen(capacity=2, pause_s=0), out, closing)
    assert cooked == eaten + left
    assert cooked + eaten == len(lines)
    assert left == read(lines[-1]).size


async def test_run_when_closed_before_the_start_then_nobody_cooks() -> None:
    closing = asyncio.Event()
    closing.set()
    assert await run(Kitchen(), lambda _: None, closing) == Tally(0, 0, 0)


async def test_run_when_cancelled_then_sends_everybody_home() -> None:
    opened = asyncio.Event()
    names: set[str] = set()

    def out(_: str) -> None:
        names.update(task.get_name() for task in asyncio.all_tasks())
        opened.set()

    running = asyncio.create_task(run(Kitchen(), out), name="kitchen")
    await opened.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert {f"Thread-{number}" for number in range(1, 6)} <= names
    assert not {task.get_name() for task in asyncio.all_tasks()} & {"kitchen", "Thread-1", "Thread-5"}


async def test_run_when_its_output_is_gone_then_raises_that_error_plainly() -> None:
    def out(_: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        await run(Kitchen(), out)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dishes", "3", "--eaters", "0"],
        ["--dishes", "3", "--chefs", "0"],
        ["--chefs", "-1"],
        ["--eaters", "-1"],
        ["--capacity", "0"],
        ["--dishes", "0"],
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--lang", "de"],
        ["--seed", "x"],
        ["--pause", "0"],
    ],
    ids=" ".join,
)
def test_command_when_an_option_makes_no_sense_then_exits_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(command, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert arguments[0] in result.stderr


def test_command_when_dishes_never_get_eaten_but_seconds_pass_then_exits_0() -> None:
    result = CliRunner().invoke(command, ["--dishes", "3", "--eaters", "0", "--seconds", "0.05"])
    assert result.exit_code == 0
    assert [read(line).size for line in result.stdout.splitlines()] == [1, 2, 3]
    assert result.stderr == "打烊：做了 3 饭，吃了 0 饭，剩下 3 饭\n"


def test_command_when_english_then_all_of_it_is() -> None:
    result = CliRunner().invoke(command, ["--lang", "en", "--dishes", "9", "--chefs", "9", "--eaters", "9"])
    assert result.exit_code == 0
    assert_true_sizes([read(line, "en") for line in result.stdout.splitlines()], 10)
    assert result.stderr == "closed: 9 cooked, 9 eaten, 0 left over\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_command_when_interrupted_then_closes_cleanly_and_adds_up(number: signal.Signals) -> None:
    code = "from mqservice.cli.kitchen import kitchen; kitchen()"
    with subprocess.Popen(
        [sys.executable, "-X", "utf8", "-c", code, "--capacity", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdout
            assert process.stderr
            first = process.stdout.readline()
            process.send_signal(number)
            rest = process.stdout.read()  # not communicate(): it misses what readline() has read ahead
            errors = process.stderr.read()
            process.wait(10)
        finally:
            process.kill()
    steps = [read(line) for line in (first + rest).splitlines()]
    cooked = sum(step.change == 1 for step in steps)
    assert_true_sizes(steps, 2)
    assert errors == f"打烊：做了 {cooked} 饭，吃了 {len(steps) - cooked} 饭，剩下 {steps[-1].size} 饭\n"
    assert process.returncode == 0
