"""mqservice: the message queue you can curl. Over Redis or Valkey, in one asyncio process.

Names are imported when they are first used: a command that only speaks HTTP starts in a third of the time.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mqservice.errors import MqError
    from mqservice.message import Message
    from mqservice.retry import Reject, Retry
    from mqservice.service import Sent, Service

    __version__: str

__all__ = ["Message", "MqError", "Reject", "Retry", "Sent", "Service", "__version__"]

_HOMES: Final = {
    "Message": "message",
    "MqError": "errors",
    "Reject": "retry",
    "Retry": "retry",
    "Sent": "service",
    "Service": "service",
}


def __getattr__(name: str) -> Any:
    """Import a public name (PEP 562)."""
    if name == "__version__":
        return version("mqservice")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"mqservice.{_HOMES[name]}"), name)
    globals()[name] = found
    return found
