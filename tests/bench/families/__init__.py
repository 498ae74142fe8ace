"""One module per family of figures, in the order in which they are measured and told."""

from tests.bench.families import depth, drain, end_to_end, latency, send

ALL = (drain.FAMILY, depth.FAMILY, send.FAMILY, end_to_end.FAMILY, latency.FAMILY)
