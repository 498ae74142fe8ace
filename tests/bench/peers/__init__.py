"""Other queues with the same job on the same server, each in an environment of its own: `make bench-peers`."""
