"""How `make bench` judges: ratios within rounds, bounds, what --compare reads. Nothing is measured here."""

import io
import json
from pathlib import Path

from tests.bench import report, running
from tests.bench.families import ALL
from tests.bench.figures import Family, Figure, Limit, Plan, Ratio, Round, Rounds
from tests.bench.lab import Lab, slug
from tests.bench.peers.catalogue import OURS, PEERS
from tests.bench.peers.environments import DRIVERS


async def nothing(_: Lab, __: Plan) -> Rounds:
    yield {}


def family(**bounds: float) -> Family:
    return Family(
        "pair",
        nothing,
        (Figure("ours"), Figure("theirs"), Figure("size", "bytes")),
        (Ratio("ours", "theirs", **bounds),),
        (Limit("size", 300, 400),),
    )


def judged(rounds: list[Round], *, quick: bool = False, **bounds: float) -> dict[str, list[running.Judged]]:
    return {m.figure.name: list(m.judged) for m in running.measured(family(**bounds), rounds, quick)}


def test_ratio_when_the_machine_drifts_between_rounds_then_it_is_the_median_of_each_rounds_own() -> None:
    rounds = [{"ours": 50.0, "theirs": 100.0}, {"ours": 10.0, "theirs": 20.0}, {"ours": 90.0, "theirs": 60.0}]
    assert [j.value for j in judged(rounds)["ours"]] == [0.5]


def test_bound_when_a_ratio_is_below_it_then_it_is_not_met() -> None:
    rounds = [{"ours": 50.0, "theirs": 100.0}]
    assert [j.met for j in judged(rounds, at_least=0.6)["ours"]] == [False]
    assert [j.met for j in judged(rounds, at_least=0.4)["ours"]] == [True]
    assert [j.met for j in judged(rounds, at_most=0.4)["ours"]] == [False]
    assert [j.met for j in judged(rounds)["ours"]] == [None]


def test_bound_when_quick_and_another_load_came_between_then_the_best_rounds_count_too() -> None:
    rounds = [{"ours": 50.0, "theirs": 100.0}, {"ours": 5.0, "theirs": 90.0}, {"ours": 6.0, "theirs": 95.0}]
    assert [j.of_bests for j in judged(rounds)["ours"]] == [0.5]
    assert [j.met for j in judged(rounds, at_least=0.4)["ours"]] == [False]
    assert [j.met for j in judged(rounds, quick=True, quick_at_least=0.4)["ours"]] == [True]


def test_bound_when_quick_then_only_the_quick_ones_count() -> None:
    rounds = [{"ours": 50.0, "theirs": 100.0, "size": 350.0}]
    quick = judged(rounds, quick=True, at_least=0.6, quick_at_least=0.3)
    assert [j.met for j in quick["ours"]] == [True]
    assert [j.met for j in quick["size"]] == [True]
    assert [j.met for j in judged(rounds)["size"]] == [False]


def test_figure_when_no_round_has_it_then_it_is_left_out() -> None:
    assert list(judged([{"ours": 50.0}])) == ["ours"]
    assert judged([{"ours": 50.0}], at_least=1.0)["ours"] == []


def test_saved_run_when_it_is_read_again_then_it_has_each_figure() -> None:
    stream = io.StringIO()
    results = running.measured(family(), [{"ours": 50.0, "theirs": 100.0}], quick=False)
    report.write((report.line("pair", entry) for entry in results), stream)
    assert [json.loads(text)["figure"] for text in stream.getvalue().splitlines()] == ["ours", "theirs"]


def test_saved_run_when_other_lines_are_in_the_file_then_they_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('measuring: pair\n{"figure": "ours", "median": 2, "ratios": []}\n{"peer": "another"}\n')
    assert report.saved(path) == {"ours": {"figure": "ours", "median": 2, "ratios": []}}


def test_families_when_they_name_figures_then_each_is_declared_once() -> None:
    assert len({entry.name for entry in ALL}) == len(ALL)
    for entry in ALL:
        names = [figure.name for figure in entry.figures]
        assert len(set(names)) == len(names)
        assert {figure.unit for figure in entry.figures} <= report.UNITS.keys()
        for ratio in entry.ratios:
            assert {ratio.figure, ratio.yardstick} <= set(names)
        assert {limit.figure for limit in entry.limits} <= set(names)
        assert slug(entry.name) == entry.name


def test_peers_when_they_are_listed_then_each_has_its_driver() -> None:
    for peer in (OURS, *PEERS):
        assert (DRIVERS / peer.driver).is_file()
        assert peer.drained or peer.sent
    assert len({peer.name for peer in PEERS}) == len(PEERS)


def test_plan_when_scaled_then_counts_are_whole_thousands() -> None:
    assert Plan(scale=0.2).count(40_000) == 8000
    assert Plan(scale=0.01).count(40_000) == 1000
