"""The yardstick of HTTP: aiohttp on uvloop, the service's own server settings, handlers that read the body.

`python -m tests.bench.bare_http '{}'`
"""

import asyncio
import contextlib

import uvloop
from aiohttp import web

from tests.bench.answering import answer

BODY = b'{"id":"01900000-0000-7000-8000-000000000000","state":"ready"}'
"""As long as what the service answers to a send."""

_streams: set[web.StreamResponse] = set()


async def read(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(status=202, body=BODY, content_type="application/json")


async def events(request: web.Request) -> web.StreamResponse:
    """Hold a stream open."""
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await stream.prepare(request)
    await stream.write(b": open\n\n")
    _streams.add(stream)
    try:
        await asyncio.Event().wait()
    finally:
        _streams.discard(stream)
    return stream


async def publish(request: web.Request) -> web.Response:
    """Write the body to every stream as an event."""
    event = b"data: " + await request.read() + b"\n\n"
    for stream in _streams:
        with contextlib.suppress(ConnectionError):
            await stream.write(event)
    return web.Response(status=202, body=BODY, content_type="application/json")


async def main() -> None:
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/read", read)
    app.router.add_get("/events", events)
    app.router.add_post("/publish", publish)
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, handler_cancellation=True, keepalive_timeout=15, shutdown_timeout=1
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024, reuse_port=True)
    await site.start()
    try:
        await answer({}, {"url": f"http://localhost:{runner.addresses[0][1]}"})
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(main())
