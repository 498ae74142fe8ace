"""mqservice: the message queue you can curl. Over Redis or Valkey, in one asyncio process."""

from importlib.metadata import version

from mqservice.errors import MqError
from mqservice.message import Message
from mqservice.retry import Reject, Retry
from mqservice.service import Sent, Service

__version__ = version("mqservice")

__all__ = ["Message", "MqError", "Reject", "Retry", "Sent", "Service", "__version__"]
