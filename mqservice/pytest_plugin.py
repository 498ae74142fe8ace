"""The test kit as a pytest fixture: `pytest_plugins = ["mqservice.pytest_plugin"]` in a conftest.py.

Apart from `testing`, so that only pytest's own runs import pytest.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from mqservice.testing import Kit, running


@pytest.fixture
def mqservice_kit() -> Callable[..., AbstractAsyncContextManager[Kit]]:
    """`async with mqservice_kit(service) as kit:` runs a service on a server of its own; see `testing.running`.

    A plain fixture: it works with whatever runs the asynchronous tests.
    """
    return running
