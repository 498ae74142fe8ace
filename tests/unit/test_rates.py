"""How often names are counted, by a clock of the test's own."""

from mqservice.rates import Pace, per_s


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_pace_when_counted_then_a_tenth_a_second_each() -> None:
    pace = Pace(Clock())
    for _ in range(5):
        pace.count("prices")
    pace.count("news")
    assert pace.per_s() == {"prices": 0.5, "news": 0.1}


def test_pace_when_a_period_has_passed_then_it_fades_and_is_forgotten() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(10):
        pace.count("prices")
    clock.now += 15
    assert pace.per_s() == {"prices": 0.5}
    clock.now += 5
    assert pace.per_s() == {}


def test_pace_when_nobody_counts_for_long_then_nothing_is_left_of_before() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.count("prices")
    clock.now += 3605
    assert pace.per_s() == {}


def test_pace_when_there_are_too_many_names_then_the_first_are_counted() -> None:
    pace = Pace(Clock())
    for number in range(Pace.NAMES + 10):
        pace.count(f"channel-{number}")
    pace.count("channel-0")
    assert len(pace.per_s()) == Pace.NAMES
    assert pace.per_s()["channel-0"] == 0.2


def test_per_s_when_half_a_period_has_passed_then_half_of_the_one_before_counts() -> None:
    assert per_s({b"sent": b"10"}, {b"sent": b"20", b"done": b"10"}, 0.5) == {"sent": 2.0, "done": 0.5}
