"""How long to wait: the bounds of the two delays, at both ends of chance."""

import pytest

from mqservice.retry import Backoff, Reject, Retry, attempt_delay_ms

LEAST, MOST = 0.0, 1.0 - 2**-53
"""The ends of what random.random returns."""


@pytest.fixture
def chance(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> float:
    monkeypatch.setattr("mqservice.retry.random.random", lambda: request.param)
    assert isinstance(request.param, float)
    return request.param


@pytest.mark.parametrize("failures", range(1, 31))
@pytest.mark.parametrize("chance", [LEAST, MOST], indirect=True)
def test_attempt_delay_when_attempts_fail_then_it_doubles_from_2_s_to_an_hour_with_half_of_it_jitter(
    failures: int, chance: float
) -> None:
    full_ms = min(3_600_000, 2_000 * 2 ** (failures - 1))
    expected = full_ms // 2 if chance == LEAST else full_ms
    assert expected - 1 <= attempt_delay_ms(failures) <= expected


@pytest.mark.parametrize("failures", [31, 1_000, 1_000_000])
def test_attempt_delay_when_attempts_failed_very_often_then_it_stays_within_the_hour(failures: int) -> None:
    assert 1_800_000 <= attempt_delay_ms(failures) <= 3_600_000


def test_attempt_delay_when_asked_often_then_it_differs() -> None:
    assert len({attempt_delay_ms(12) for _ in range(20)}) > 1


@pytest.mark.parametrize("chance", [MOST], indirect=True)
def test_backoff_when_it_goes_on_then_its_longest_wait_doubles_up_to_the_most(chance: float) -> None:
    backoff = Backoff(first_s=0.1, most_s=5.0)
    waits = [backoff.next_s() for _ in range(8)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])


@pytest.mark.parametrize("chance", [LEAST], indirect=True)
def test_backoff_when_chance_is_least_then_it_does_not_wait(chance: float) -> None:
    backoff = Backoff()
    assert [backoff.next_s() for _ in range(8)] == [0.0] * 8


def test_backoff_when_an_outage_is_long_then_no_wait_leaves_its_bounds() -> None:
    backoff = Backoff(most_s=2.0)
    assert all(0.0 <= backoff.next_s() <= 2.0 for _ in range(5_000))


@pytest.mark.parametrize("chance", [MOST], indirect=True)
def test_backoff_when_reset_then_it_starts_again_from_the_shortest(chance: float) -> None:
    backoff = Backoff(first_s=0.1)
    for _ in range(10):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == pytest.approx(0.1)


def test_wishes_when_made_without_arguments_then_they_mean_the_usual() -> None:
    assert Retry().delay is None
    assert Retry(0).delay == 0
    assert Reject().reason == "rejected by the handler"
    assert str(Reject("blocked")) == Reject("blocked").reason == "blocked"


def test_attempt_delay_when_first_and_most_are_set_then_within_half_and_whole_of_them() -> None:
    for failures, full_s in ((1, 0.1), (2, 0.2), (3, 0.4), (9, 1.0)):
        assert full_s * 500 - 1 <= attempt_delay_ms(failures, 0.1, 1.0) <= full_s * 1000
