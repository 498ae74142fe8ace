"""Server-sent events as text, after the HTML standard, 9.2: encoded once, sent to many."""


def encode(name: str, data: bytes, event_id: str = "") -> bytes:
    """Return an event as it is sent. `data` has no line breaks, as JSON of ours has none."""
    head = f"id: {event_id}\nevent: {name}\n" if event_id else f"event: {name}\n"
    return b"%bdata: %b\n\n" % (head.encode(), data)
