"""Histograms: which bucket, adding up, and what a quantile says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqservice.histogram import BOUNDS_S, Histogram, merged

SECONDS = st.lists(st.floats(0, 200), min_size=1, max_size=200)


def of(seconds: list[float]) -> Histogram:
    histogram = Histogram()
    for one in seconds:
        histogram.observe(one)
    return histogram


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.0005, 0), (0.00051, 1), (0.001, 1), (1.0, 11), (1e9, len(BOUNDS_S))]
)
def test_observe_when_a_time_is_seen_then_its_bucket_counts(seconds: float, bucket: int) -> None:
    assert of([seconds]).by_bucket() == {bucket: 1}


def test_since_when_an_earlier_moment_is_given_then_only_what_came_after_is_left() -> None:
    histogram = of([0.1, 5.0])
    before = list(histogram.counts)
    histogram.observe(0.1)
    assert histogram.since(before).by_bucket() == of([0.1]).by_bucket()
    assert histogram.sum_s == pytest.approx(5.2)


def test_quantile_when_nothing_was_seen_then_none() -> None:
    assert Histogram().quantile_ms(0.95) is None


@given(SECONDS, st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_quantile_when_compared_with_the_true_one_then_it_is_in_the_same_bucket(
    seconds: list[float], share: float
) -> None:
    rank = max(0, -(-int(share * len(seconds) * 1_000_000) // 1_000_000) - 1)
    true_s = sorted(seconds)[rank]
    found = of(seconds).quantile_ms(share)
    (bucket,) = of([true_s]).by_bucket()
    assert found is not None
    assert (BOUNDS_S[bucket - 1] if bucket else 0.0) * 1000 <= found + 0.001
    assert found <= BOUNDS_S[bucket] * 1000 + 0.001


@given(SECONDS, SECONDS)
def test_merged_when_added_up_then_as_if_seen_by_one(one: list[float], other: list[float]) -> None:
    assert merged([of(one), of(other)]).counts == of(one + other).counts


def test_histogram_when_made_of_counts_by_bucket_then_the_same() -> None:
    histogram = of([0.1, 0.2, 30.0])
    counts = list(histogram.counts)
    assert Histogram(histogram.by_bucket()).counts == counts
