"""Measurements, each beside a yardstick from the same run. `make bench`."""
