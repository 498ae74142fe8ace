"""The fields of a record that anybody may have written: read, never an error."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqservice import records
from mqservice.errors import WrongType
from mqservice.message import JSON, Attempt, Meta, decode_meta
from mqservice.message_view import MessageView, Progress, message_view
from mqservice.views import _known

FIELD = st.binary() | st.sampled_from([b"nan", b"inf", b"-1", b"9" * 400, b"1e400", b"[" * 5000, b"\n", b"\xff", b"  "])
STATE = st.sampled_from([b"ready", b"scheduled", b"active", b"done", b"dead", b"cancelled"])
NAMES = (
    *("meta", "body", "result", "error", "reason", "progress", "history", "attempts", "crashes", "leased"),
    *("sent", "due", "finished", "expires", "lease", "blob_bytes"),
)


@given(st.dictionaries(st.sampled_from(NAMES), FIELD), STATE, st.none() | FIELD)
@settings(max_examples=60, deadline=None)
def test_view_when_a_record_holds_anything_then_it_is_shown_as_json(
    record: dict[str, bytes], state: bytes, blob: bytes | None
) -> None:
    view = message_view("x", "q", {**record, "state": state}, blob)
    assert isinstance(view, MessageView)
    shown = JSON.encode(view)
    shown.decode()
    assert bytes(records.value(shown)) == shown, "what is answered is JSON"


@given(st.binary())
def test_view_when_the_state_is_none_then_there_is_no_message(state: bytes) -> None:
    view = message_view("x", "q", {"state": state}, None)
    assert view is None or view.state.encode() == state


def test_view_when_nothing_has_happened_yet_then_ready_and_active_with_a_lease() -> None:
    plain = {"sent": b"1795000000000", "body": b"1"}
    lease = b"8000000000000000- 1 1795000000500 host-1-a/q"
    views = [message_view("x", "q", record, None) for record in (plain, {**plain, "leased": lease}, {"body": b"1"})]
    assert [view and view.state for view in views] == ["ready", "active", None]


def test_view_when_done_then_it_says_when() -> None:
    lease = b"8000000000000000- 1 1795000000500 host-1-a/q 250"
    view = message_view("x", "q", {"state": b"done", "sent": b"1795000000000", "lease": lease}, None)
    assert view is not None
    assert (view.claimed_at, view.finished_at) == ("2026-11-18T11:06:40.500Z", "2026-11-18T11:06:40.750Z")
    assert view.by == "host-1-a/q"


@given(FIELD)
def test_meta_when_it_is_anything_then_it_is_one(stored: bytes) -> None:
    assert isinstance(decode_meta(stored), Meta)


def test_meta_when_nested_deep_in_what_we_do_not_know_then_the_defaults() -> None:
    assert decode_meta(b'{"other":' + b"[" * 100_000) == Meta()


@pytest.mark.parametrize(
    "stored", [b'{"attempts": 0}', b'{"retry_s": -1}', b'{"retry_s": 1e300}', b'{"attempts": "1"}']
)
def test_meta_when_it_would_break_the_budget_then_the_defaults(stored: bytes) -> None:
    assert decode_meta(stored) == Meta()


def test_attempt_when_unreadable_then_it_is_quoted() -> None:
    assert records.attempt(b"oops \xff") == Attempt("Unreadable", "oops \ufffd")


def test_number_when_written_by_a_script_then_it_is_read() -> None:
    assert records.number(b"1795000000000") == 1_795_000_000_000
    assert [records.number(text) for text in (None, b"", b"-1", b"1.5", b"nan", b"9" * 5000)] == [0] * 6


def test_known_when_the_key_is_no_hash_then_there_are_no_fields() -> None:
    error = WrongType("a string")
    assert _known(error, error, None) == {}


def test_progress_when_written_by_a_script_then_it_is_read() -> None:
    view = message_view("x", "q", {"state": b"active", "progress": b"17 0.5 half way there"}, None)
    assert view is not None
    assert view.progress == Progress(0.5, "half way there", 17)
