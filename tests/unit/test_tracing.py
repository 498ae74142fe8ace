"""The trace of what runs: which headers count, and what a run's own span is."""

import pytest

from mqservice.message import NO_META, Claimed, Meta, Receipt
from mqservice.tracing import current, is_traceparent, of_run, wants_spans

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{SPAN}-01"


def claimed(meta: Meta, claim: str = "8000000000000001") -> Claimed:
    return Claimed(Receipt("id-1", claim), b"7", meta, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (GIVEN, True),
        (f"cc-{TRACE}-{SPAN}-00", True),
        ("", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"{GIVEN}-more", False),
        (f"{GIVEN}\n", False),
        (f"00-{TRACE}-{SPAN}", False),
    ],
)
def test_traceparent_when_checked_then_only_what_can_be_used_counts(text: str, valid: bool) -> None:
    assert is_traceparent(text) == valid
    assert (of_run(claimed(Meta(headers={"traceparent": text}))) is not None) == valid


def test_run_when_its_message_carries_a_trace_then_its_span_is_new_and_stays_the_same() -> None:
    meta = Meta(headers={"traceparent": GIVEN})
    its = of_run(claimed(meta))
    assert its is not None
    assert (its.trace_id, its.flags, len(its.span_id)) == (TRACE, "01", 16)
    assert its.span_id != SPAN
    assert is_traceparent(its.traceparent)
    assert of_run(claimed(meta)) == its
    assert of_run(claimed(meta, "9000000000000002")) != its


def test_run_when_its_message_carries_none_then_there_is_none() -> None:
    assert of_run(claimed(NO_META)) is None
    assert current() is None
    assert not wants_spans()
