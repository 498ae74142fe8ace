"""JSON as text: what is none is named, what is large holds nobody up."""

import asyncio
import gc
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqservice import jsontext

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
LARGE = b" " * jsontext.LARGE_BYTES


@given(JSON_VALUES)
@settings(max_examples=40, deadline=None)
def test_fault_when_it_is_json_then_there_is_none_and_it_decodes_to_the_same(value: Any) -> None:
    text = msgspec.json.encode(value)
    for padded in (text, LARGE + text):
        assert jsontext.fault(padded) == ""
        assert jsontext.is_wellformed(padded)
        assert jsontext.decode(padded) == json.loads(text)


@given(st.binary())
def test_fault_when_bytes_are_anything_then_it_is_text_and_decoding_agrees(text: bytes) -> None:
    fault = jsontext.fault(text)
    assert isinstance(fault, str)
    assert jsontext.is_wellformed(text) == (not fault)
    if fault:
        with pytest.raises(jsontext.FAULTS):
            jsontext.decode(text)
    else:
        jsontext.decode(text)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b'"\xff"', b"NaN", b"[" * 100_000, b"1 2", b'"\\ud800"', b"\xef\xbb\xbf1", b"9" * 5000, b"1e999"],
)
def test_fault_when_it_is_no_json_then_it_is_named_at_any_size(text: bytes) -> None:
    assert jsontext.fault(text)
    assert jsontext.fault(LARGE + text)


@pytest.mark.parametrize("text", [b"{", b'"\xff"', b"NaN", b"[" * 100_000, b"1 2"])
def test_wellformed_when_large_and_no_json_then_it_is_not(text: bytes) -> None:
    assert not jsontext.is_wellformed(LARGE + text)


def test_decode_when_large_and_faulty_then_the_collector_goes_on_afterwards() -> None:
    with pytest.raises(msgspec.DecodeError):
        jsontext.decode(LARGE + b"{")
    assert gc.isenabled()
    gc.disable()
    try:
        jsontext.decode(LARGE + b"1")
        assert not gc.isenabled()
    finally:
        gc.enable()


async def test_decode_when_large_on_a_loop_then_the_collector_comes_back_with_its_next_turn() -> None:
    jsontext.decode(LARGE + b"1")
    assert not gc.isenabled()
    jsontext.decode(LARGE + b"2")
    await asyncio.sleep(0)
    assert gc.isenabled()
