"""Handlers' first parameters: whatever a body holds, it is decoded, or refused as a misfit."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqservice import jsontext
from mqservice.config import QueueConfig, QueueOptions
from mqservice.executor import Execution
from mqservice.handlers import Registry, decoder
from mqservice.message import Attempt, Claimed, Dead, Done, Meta, Receipt, RetryIn


class Order(msgspec.Struct):
    """A typed body."""

    number: int
    lines: list[str] = []


BODIES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"[" * 100_000, b'"\xff"', b"nan", b"1e999", b"9" * 5000, b'{"number":', b'{"number": 1e400}', b"\xff"]
    ),
    st.recursive(st.none() | st.integers() | st.text(), st.lists).map(msgspec.json.encode),
)
METAS = st.builds(Meta, content_type=st.sampled_from(["", "text/plain", "application/json", "\xff", "text/"]))
NUMBERS = st.integers(-(2**63), 2**63 - 1)


@pytest.mark.parametrize("annotation", [bytes, str, Any, int, Order, list[Order], dict[str, float]])
@given(body=BODIES, meta=METAS)
@settings(max_examples=30, deadline=None)
def test_decoder_when_the_body_is_anything_then_it_is_decoded_or_refused(
    annotation: Any, body: bytes, meta: Meta
) -> None:
    with contextlib.suppress(*jsontext.FAULTS):  # any other error fails the test
        decoder(annotation)(body, meta)


@given(body=BODIES, meta=METAS, attempts=NUMBERS, crashes=NUMBERS, sent_ms=NUMBERS)
@settings(max_examples=50, deadline=None)
async def test_execution_when_claimed_is_anything_then_there_is_an_outcome(
    body: bytes, meta: Meta, attempts: int, crashes: int, sent_ms: int
) -> None:
    registry = Registry()

    @registry.handler("jobs", {})
    async def jobs(order: Order) -> Any:
        raise ValueError(order.number)

    named = {field: getattr(QueueConfig(), field) for field in QueueConfig.__struct_fields__}
    execution = Execution(registry.handlers["jobs"], QueueOptions(**named, name="jobs", key="mq:jobs"), "me")
    outcome = await execution.run(Claimed(Receipt("one", "0" * 16), body, meta, attempts, crashes, sent_ms))
    assert isinstance(outcome, (Done, Dead, RetryIn))
    if isinstance(outcome, (Dead, RetryIn)):
        assert msgspec.json.decode(msgspec.json.encode(outcome.attempt), type=Attempt) == outcome.attempt
