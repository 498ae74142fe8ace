"""Events as text: whatever the data is, one event is one event."""

from mqservice.events import encode


def test_encode_when_the_json_has_line_breaks_then_they_end_no_field() -> None:
    assert encode("state", b'{"body":{\r\n "a": "\\n"\n}}', "1-1") == (
        b'id: 1-1\nevent: state\ndata: {"body":{   "a": "\\n" }}\n\n'
    )
