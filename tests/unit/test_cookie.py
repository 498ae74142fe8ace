"""The cookie of a session: whose it is, and what it is not."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqservice.web.access import Caller
from mqservice.web.cookie import opened_by, seal

KEY = b"k" * 32
OPS = Caller("ops.1", frozenset({"read"}), None, b"d" * 32)
CALLERS = {"ops.1": OPS, "ci": Caller("ci", frozenset({"admin"}), None, b"e" * 32)}
LATER = int(time.time()) + 86_400


def test_cookie_when_it_is_ours_then_the_session_is_its_tokens() -> None:
    who = opened_by(seal(OPS, KEY, LATER), CALLERS, KEY)
    assert who is not None
    assert (who.name, who.scopes, who.expires_s) == ("ops.1", OPS.scopes, LATER)


WRONG = {
    "late": seal(OPS, KEY, int(time.time()) - 1),
    "signed with another key": seal(OPS, b"x" * 32, LATER),
    "of a token that is gone": seal(Caller("gone", OPS.scopes, None, OPS.digest), KEY, LATER),
    "of another secret": seal(Caller("ops.1", OPS.scopes, None, b"n" * 32), KEY, LATER),
    "of another name": seal(OPS, KEY, LATER).replace("ops.1", "ci"),
    "prolonged": seal(OPS, KEY, LATER).replace(f"{LATER}", f"{LATER + 1}"),
    "cut": seal(OPS, KEY, LATER)[:-1],
    "unsigned": f"ops.1.{LATER}.",
    "no text": f"ops.1.{LATER}.\udcff",
    **{f"{value!r}": value for value in ("", ".", "..", "ops.1", "ops.1.x.y")},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_cookie_when_late_or_forged_or_of_another_secret_then_it_opens_nothing(wrong: str) -> None:
    assert opened_by(WRONG[wrong], CALLERS, KEY) is None


def test_cookie_when_there_is_no_key_then_it_opens_nothing() -> None:
    assert opened_by(seal(OPS, b"", LATER), CALLERS, b"") is None


@given(st.text(max_size=100))
def test_cookie_when_anything_then_it_opens_nothing_and_nothing_breaks(value: str) -> None:
    assert opened_by(value, CALLERS, KEY) is None
    assert opened_by(f"ops.1.{value}", CALLERS, KEY) is None
