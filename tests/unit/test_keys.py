"""Names that are allowed, and keys that stay together."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from mqservice import keys
from mqservice.errors import InvalidName

ALLOWED = string.ascii_letters + string.digits + "._:-"


@settings(max_examples=25)
@given(st.text(ALLOWED, min_size=1, max_size=128))
def test_valid_name_when_it_has_only_allowed_characters_then_it_is_returned_as_it_is(name: str) -> None:
    assert keys.valid_name(name) is name


@settings(max_examples=25)
@given(st.text(ALLOWED, max_size=3), st.characters(exclude_characters=ALLOWED), st.text(ALLOWED, max_size=3))
def test_valid_name_when_one_character_is_not_allowed_then_it_is_refused(before: str, wrong: str, after: str) -> None:
    with pytest.raises(InvalidName):
        keys.valid_name(before + wrong + after)


@pytest.mark.parametrize("name", ["", "a" * 129, "a\n", "\na", "a b", "a/b", "a{b}", "../a", "a\0", "é", "٣", "*"])
def test_valid_name_when_it_is_no_name_then_it_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        keys.valid_name(name)


def test_valid_name_when_refused_then_the_text_says_what_and_which_and_is_short() -> None:
    with pytest.raises(InvalidName, match=r"channel 'a b' is not a name: 1 to 128 of A-Z"):
        keys.valid_name("a b", "channel")
    with pytest.raises(InvalidName) as caught:
        keys.valid_name("x" * 1_000_000)
    assert len(str(caught.value)) < 250


def test_ready_when_a_queue_has_no_key_of_its_own_then_its_list_is_prefixed() -> None:
    assert keys.ready("emails") == "mq:emails"


def test_keys_when_derived_then_they_read_as_documented() -> None:
    assert keys.record("mq:emails", "7") == "{mq:emails}:m:7"
    assert keys.part("task:prodcons:queue", "bell") == "{task:prodcons:queue}:bell"


@settings(max_examples=25)
@given(st.text(st.characters(exclude_characters="{}", codec="utf-8"), min_size=1), st.text(ALLOWED, min_size=1))
def test_keys_when_of_one_queue_then_they_share_a_cluster_slot(list_key: str, name: str) -> None:
    slot = key_slot(list_key.encode())
    assert key_slot(keys.record(list_key, name).encode()) == slot
    assert key_slot(keys.part(list_key, name).encode()) == slot


@settings(max_examples=25)
@given(st.text(ALLOWED, min_size=1), st.sampled_from(["bell", "active", "scheduled", "dead", "done", "info"]))
def test_keys_when_a_message_is_called_as_a_part_then_its_record_is_another_key(message_id: str, part: str) -> None:
    assert keys.record("mq:q", message_id) != keys.part("mq:q", part)
