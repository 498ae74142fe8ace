"""How much the process that answers logs."""

import msgspec
from aiohttp import web
from msgspec import Struct

from mqservice import log
from mqservice.web.answers import answer
from mqservice.web.body import read_content
from mqservice.web.problems import Refusal


class LogLevel(Struct, frozen=True, forbid_unknown_fields=True):
    """Lines at this level and above are written."""

    level: log.Level


async def view(_request: web.Request) -> web.Response:
    """Show the log level of the process that answers."""
    return answer(LogLevel(log.level()))


async def put(request: web.Request) -> web.Response:
    """Change the log level of the process that answers, until it ends or reads its configuration again (SIGHUP).

    Other processes keep theirs.
    """
    content = await read_content(request)
    if content.type:
        raise Refusal("unsupported-type", f"{content.type} is no log level: application/json")
    try:
        wanted = msgspec.json.decode(content.body, type=LogLevel)
    except msgspec.DecodeError as error:
        raise Refusal("invalid-level", str(error)) from None
    log.change_level(wanted.level)
    return answer(wanted)
