"""How many messages a consumer claims, by what its handlers have shown."""

import pytest

from mqservice.prefetch import Prefetch


def after(slots: int, run_s: float, bytes_: int = 10) -> Prefetch:
    prefetch = Prefetch(slots)
    for _ in range(200):
        prefetch.ran(run_s, bytes_)
    return prefetch


def test_room_when_nothing_has_run_then_as_many_as_there_are_slots() -> None:
    assert Prefetch(100).room(0, 0) == 100
    assert Prefetch(3).room(0, 0) == 3
    assert Prefetch(3).room(1, 1) == 2
    assert Prefetch(3).room(3, 3) == 0


@pytest.mark.parametrize(
    ("slots", "run_s", "first", "second"),
    [
        (100, 2e-6, 300, 300),  # the next claim is on its way while these run
        (100, 100e-6, 100, 100),  # one after the other, 200 take 20 ms
        (100, 0.01, 100, 100),  # side by side
        (100, 0.1, 100, 20),
        (100, 10.0, 100, 0),
        (1, 2e-6, 32, 0),
        (1, 10.0, 1, 0),
        (1000, 2e-6, 1000, 1000),
    ],
)
def test_room_when_handlers_are_so_quick_then_no_more_than_start_soon(
    slots: int, run_s: float, first: int, second: int
) -> None:
    prefetch = after(slots, run_s)
    assert prefetch.room(0, 0) == first
    assert prefetch.room(first, first) == second


def test_room_when_bodies_are_large_then_few_megabytes_beyond_the_slots() -> None:
    assert after(100, 2e-6, 10_000).room(0, 0) == 209
    assert after(100, 2e-6, 100_000).room(0, 0) == 100


def test_room_when_settles_are_not_answered_then_none_at_last() -> None:
    prefetch, held = after(100, 2e-6), 0
    while room := prefetch.room(0, held):
        held += room
    assert 1000 < held <= 1500


def test_room_when_what_was_claimed_ahead_had_to_wait_then_next_to_none_of_it() -> None:
    prefetch = after(100, 2e-6)
    prefetch.was_late(1.0)
    assert prefetch.room(100, 100) == 2
    for _ in range(200):
        prefetch.ran(2e-6, 10)
    assert prefetch.room(0, 0) == 300


@pytest.mark.parametrize(
    ("slots", "claimed", "room", "wants"),
    [(100, 0, 300, True), (100, 24, 300, True), (100, 25, 300, False), (100, 20, 20, False), (1, 1, 32, True)],
)
def test_wants_bell_when_a_claim_has_taken_few_then_true(slots: int, claimed: int, room: int, wants: bool) -> None:
    assert Prefetch(slots).wants_bell(claimed, room) is wants
