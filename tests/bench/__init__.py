"""Measurements, each beside a yardstick from the same run: `make bench`, `make bench-quick`, `make bench-peers`.

`families/` has one module per family of figures, `running` interleaves them, `subject` is the service that is measured,
in a process of its own, `yardsticks` is what it is measured against, `peers/` are other queues with the same job.
"""
