"""The rate limit: bursts, the long run, many keys, bounded memory. Time is told, not waited for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqservice.web.rate import Limiter, address_key


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def limiter(rate: float, burst: int, most: int = 100) -> tuple[Limiter, Clock]:
    clock = Clock()
    return Limiter(rate, burst, most, clock), clock


def test_take_when_a_burst_comes_then_that_many_pass_and_the_next_is_told_when() -> None:
    bucket, clock = limiter(2, 3)
    assert [bucket.take("a") for _ in range(3)] == [0, 0, 0]
    assert bucket.take("a") == pytest.approx(0.5)
    assert bucket.take("b") == 0
    clock.now += 0.49
    assert bucket.take("a") == pytest.approx(0.01)
    clock.now += 0.011
    assert bucket.take("a") == 0
    assert bucket.take("a") > 0


def test_take_when_refused_then_it_costs_nothing() -> None:
    bucket, clock = limiter(1, 1)
    bucket.take("a")
    for _ in range(100):
        assert bucket.take("a") == pytest.approx(1)
    clock.now += 1
    assert bucket.take("a") == 0


def test_take_when_long_idle_then_no_more_than_a_burst_has_gathered() -> None:
    bucket, clock = limiter(10, 5)
    clock.now += 1e6
    assert sum(bucket.take("a") == 0 for _ in range(50)) == 5


@given(st.floats(0.01, 1e5), st.integers(1, 50), st.lists(st.floats(0, 10), max_size=200))
def test_take_when_anybody_asks_anyhow_then_never_more_than_burst_plus_rate_pass(
    rate: float, burst: int, pauses_s: list[float]
) -> None:
    bucket, clock = limiter(rate, burst)
    start, passed = clock.now, 0
    for pause_s in pauses_s:
        clock.now += pause_s / rate
        passed += bucket.take("a") == 0
    assert passed <= burst + (clock.now - start) * rate + 1e-3


def test_take_when_keys_are_endless_then_the_oldest_are_forgotten() -> None:
    bucket, _ = limiter(1, 1, most=10)
    for number in range(1000):
        bucket.take(f"{number}")
    assert len(bucket._full_at) == 10
    assert bucket.take("999") > 0


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        (None, ""),
        ("", ""),
    ],
)
def test_address_key_when_ipv6_then_it_is_that_of_its_network(address: str | None, key: str) -> None:
    assert address_key(address) == key
