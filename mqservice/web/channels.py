"""Channels: publish."""

from aiohttp import web

from mqservice.web.answers import Published, answer
from mqservice.web.body import read_content
from mqservice.web.context import CONTEXT
from mqservice.web.idempotent import NewId, once


async def publish(request: web.Request) -> web.Response:
    """Publish a message to every subscriber of a channel. The body is the message, as it is; nobody keeps it."""
    content = await read_content(request)
    return await once(request, [content.body], lambda new_id: _publish(request, content.body, new_id))


async def _publish(request: web.Request, body: bytes, new_id: NewId) -> web.Response:
    receivers = await request.app[CONTEXT].publish(request.match_info["channel"], body)
    return answer(Published(new_id(), receivers), 202)
