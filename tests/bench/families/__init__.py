"""One module per family of figures, in the order in which they are measured and told."""

from tests.bench.families import (
    depth,
    drain,
    durability,
    end_to_end,
    fan_out,
    http_send,
    http_wait,
    latency,
    memory,
    ndjson,
    payloads,
    processes,
    send,
)

ALL = tuple(
    module.FAMILY
    for module in (
        drain,
        depth,
        send,
        end_to_end,
        latency,
        http_send,
        http_wait,
        ndjson,
        fan_out,
        payloads,
        durability,
        processes,
        memory,
    )
)
