"""Who may be connected when there is no room left."""

from dataclasses import dataclass

import pytest

from mqservice.web import admission
from mqservice.web.admission import Admission


@dataclass(eq=False)
class Caller:
    """A connection."""

    has_asked: bool = False
    is_idle: bool = True
    is_gone: bool = False

    def leave(self) -> None:
        self.is_gone = True


async def test_enter_when_there_is_room_then_nobody_goes() -> None:
    house, callers = Admission(3), [Caller() for _ in range(3)]
    assert all(house.enter(caller) for caller in callers)
    assert len(house) == 3
    assert not any(caller.is_gone for caller in callers)


async def test_enter_when_full_then_the_longest_silent_goes_before_who_has_asked() -> None:
    house = Admission(3)
    known, silent, later = Caller(has_asked=True), Caller(), Caller()
    for caller in (known, silent, later, Caller()):
        assert house.enter(caller)
    assert (known.is_gone, silent.is_gone, later.is_gone) == (False, True, False)
    assert len(house) == 3


async def test_enter_when_all_have_asked_then_who_idles_goes_and_who_is_answered_stays() -> None:
    house = Admission(2)
    busy, idle = Caller(has_asked=True, is_idle=False), Caller(has_asked=True)
    for caller in (busy, idle, Caller(has_asked=True)):
        assert house.enter(caller)
    assert (busy.is_gone, idle.is_gone) == (False, True)


async def test_enter_when_all_are_being_answered_then_refused_until_one_has_left() -> None:
    house = Admission(2)
    busy = [Caller(has_asked=True, is_idle=False) for _ in range(2)]
    for caller in busy:
        house.enter(caller)
    assert not house.enter(Caller())
    house.left(busy[0])
    house.left(busy[0])
    assert house.enter(Caller())


async def test_most_when_the_system_allows_fewer_descriptors_then_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission.resource, "getrlimit", lambda _: (300, 300))
    monkeypatch.setattr(admission.resource, "setrlimit", lambda *_: None)
    house = Admission(1000)
    for _ in range(50):
        house.enter(Caller())
    assert len(house) == 300 - 256
