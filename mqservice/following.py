"""What this process follows on Redis channels, over its one subscription: its subscribers, its
clients' event streams, and its own channel.

On its own channel, `mq:process:<name>`, scripts tell the process that a message it waits for has ended, or that a
message it works on is to be cancelled. Run by the runtime.
"""

from collections.abc import Callable, Mapping, Sequence

import structlog

from mqservice.connections import Connections
from mqservice.fanout import Fanout
from mqservice.handlers import is_pattern
from mqservice.keys import QUEUE_CHANNELS, process_channel
from mqservice.queue_streams import QueueStreams
from mqservice.subscriber import Subscriber
from mqservice.subscription import Deliver, Subscription

log = structlog.get_logger()

OnMessage = Callable[[str, str], None]
"""Called with a queue's list key and a message's id."""


def follow(
    connections: Connections,
    process: str,
    subscribers: Mapping[str, Sequence[Subscriber]],
    fanout: Fanout,
    queue_streams: QueueStreams,
    on_ended: OnMessage,
    on_cancel: OnMessage,
) -> Subscription:
    """Return the subscription of a process; it delivers while it runs. `subscribers` by Redis channel or pattern."""
    own = process_channel(process)
    deliver = _delivery(own, subscribers, fanout, queue_streams, {b"ended": on_ended, b"cancel": on_cancel})
    channels = [own, *(key for key in subscribers if not is_pattern(key))]
    subscription = Subscription(connections, channels, [key for key in subscribers if is_pattern(key)], deliver)
    fanout.attach(subscription)
    queue_streams.attach(subscription)
    return subscription


def _delivery(
    own: str,
    subscribers: Mapping[str, Sequence[Subscriber]],
    fanout: Fanout,
    queue_streams: QueueStreams,
    verbs: Mapping[bytes, OnMessage],
) -> Deliver:
    def deliver(followed: str, channel: str, body: bytes) -> None:
        if followed != own:
            for subscriber in subscribers.get(followed, ()):
                subscriber.deliver(channel, body)
            if followed.startswith(QUEUE_CHANNELS):
                queue_streams.deliver(followed, body)
            else:
                fanout.deliver(followed, channel, body)
            return
        verb, _, rest = body.partition(b" ")
        message_id, _, list_key = rest.partition(b" ")
        if verb in verbs:
            verbs[verb](list_key.decode(errors="replace"), message_id.decode(errors="replace"))
        else:
            log.warning("unknown notification", verb=verb[:20])

    return deliver
