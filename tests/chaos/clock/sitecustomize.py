"""Python imports this at start when this folder is on PYTHONPATH: the wall clock then differs by what a file says.

CHAOS_CLOCK names the file; it holds seconds, and may change while the process runs. The monotonic clock stays.
"""

import os
import time

_path = os.environ["CHAOS_CLOCK"]
_time, _time_ns = time.time, time.time_ns


def _ahead_s() -> float:
    with open(_path) as file:
        return float(file.read() or 0)


def _moved_time() -> float:
    return _time() + _ahead_s()


def _moved_time_ns() -> int:
    return _time_ns() + int(_ahead_s() * 1e9)


time.time, time.time_ns = _moved_time, _moved_time_ns
