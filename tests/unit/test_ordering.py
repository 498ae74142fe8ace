"""Messages in order, each once, whatever of them came live and whatever from the history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqservice import ordering as module
from mqservice.channel_history import EventId
from mqservice.ordering import Ordering


def numbered(*numbers: int) -> list[tuple[EventId, bytes]]:
    return [(EventId(1, number), b"%d" % number) for number in numbers]


def seen_by(last: int | None = None) -> tuple[Ordering, list[bytes]]:
    seen: list[bytes] = []
    return Ordering(lambda _, encoded: seen.append(encoded), EventId(1, last) if last is not None else None), seen


def test_receive_when_live_then_handed_on_at_once_and_known_ones_dropped() -> None:
    ordering, seen = seen_by()
    for event in [*numbered(1, 2, 2, 1, 3), (None, b"foreign")]:
        ordering.receive(*event)
    assert seen == [b"1", b"2", b"3", b"foreign"]


def test_release_when_history_and_live_overlap_then_each_comes_once_in_order() -> None:
    ordering, seen = seen_by(2)
    ordering.hold()
    for event in [*numbered(5, 6), (None, b"foreign"), *numbered(7)]:
        ordering.receive(*event)
    assert seen == []
    for event in numbered(3, 4, 5):
        ordering.put(*event)
    assert ordering.release()
    assert seen == [b"3", b"4", b"5", b"6", b"foreign", b"7"]
    assert not ordering.is_behind


def test_release_when_more_was_held_than_fits_then_the_history_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HELD", 2)
    ordering, seen = seen_by(0)
    ordering.hold()
    for event in numbered(1, 2, 3):
        ordering.receive(*event)
    assert not ordering.release()
    assert ordering.is_behind
    for event in numbered(1, 2, 3):
        ordering.put(*event)
    assert ordering.release()
    assert seen == [b"1", b"2", b"3"]


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_release_when_cut_anywhere_then_nothing_is_missing_and_nothing_twice(known: int, held: int, read: int) -> None:
    """The client knows up to `known`; live ones come from `held` on; the history is read up to `read`, or `held`."""
    ordering, seen = seen_by(known)
    ordering.hold()
    for event in numbered(*range(held + 1, 41)):
        ordering.receive(*event)
    for event in numbered(*range(known + 1, max(read, held) + 1)):
        ordering.put(*event)
    assert ordering.release()
    assert seen == [b"%d" % number for number in range(known + 1, 41)]
