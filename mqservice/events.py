"""Server-sent events as text, after the HTML standard, 9.2: encoded once, sent to many."""

_SPACES = bytes.maketrans(b"\r\n", b"  ")


def encode(name: str, data: bytes, event_id: str = "") -> bytes:
    """Return an event as it is sent. `data` is JSON: a line break in it, which ends a field here, becomes a space.

    There can be some between the values of a body, which is shown as its sender wrote it.
    """
    head = f"id: {event_id}\nevent: {name}\n" if event_id else f"event: {name}\n"
    if b"\n" in data or b"\r" in data:
        data = data.translate(_SPACES)
    return b"%bdata: %b\n\n" % (head.encode(), data)
