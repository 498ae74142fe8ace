"""The HTTP listener: opens the port last, closes it first."""

import asyncio
import errno
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from mqservice.config import HttpConfig, Token, is_loopback
from mqservice.errors import ConfigError
from mqservice.web.admission import Admission
from mqservice.web.app import application
from mqservice.web.context import Context
from mqservice.web.protocol import Protocol
from mqservice.web.shortcut import remembering
from mqservice.web.sse import STREAMS

_SHUTDOWN_S = 5.0
"""How long answers under way may take once the listener is closed."""

_LINGER_S = 2.0
"""How long what is left of a refused body is read and dropped, so that its client gets to read the refusal."""


_OFF_LOOPBACK: Final = """\
http.host = "{host}" can be reached from other machines, and there is no token to tell friend from foe.
Listen on 127.0.0.1, or add a token to config.toml; `mqservice token ops` makes these lines and the secret:

[[auth.tokens]]
name = "ops"
sha256 = "<SHA-256 of the secret, 64 hex digits>"
scopes = ["send", "read", "work", "admin"]"""


class Server:
    """Serves the application on one port, which other processes may share (SO_REUSEPORT)."""

    def __init__(self, context: Context, config: HttpConfig, tokens: Mapping[str, Token]) -> None:
        self._config, self._tokens = config, tokens
        app = application(context, config, tokens)
        self.streams = app[STREAMS]
        """The open event streams."""
        self._runner = web.AppRunner(
            app,
            shutdown_timeout=_SHUTDOWN_S,
            handle_signals=False,
            handler_cancellation=True,  # nobody waits for a message on behalf of a client that has gone
        )
        self._admission = Admission(config.connections)
        self._listener: asyncio.Server | None = None
        self._port = 0

    async def start(self) -> None:
        """Open the port. Raises ConfigError when it is taken, or when anybody on the network could use it."""
        host, port = self._config.host, self._config.port
        if not self._tokens and not is_loopback(host):
            raise ConfigError(_OFF_LOOPBACK.format(host=host))
        await self._runner.setup()
        if (manager := self._runner.server) is not None:
            manager.request_handler = remembering(manager.request_handler)
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(self._protocol, host, port, reuse_port=True, backlog=1024)
        except OSError as error:
            await self._runner.cleanup()
            if error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
                raise ConfigError(f"http.port = {port}: {error.strerror}; try --port {port + 1}") from error
            raise
        self._port = self._listener.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """Where it listens, with the real port."""
        host = self._config.host
        return f"http://{'localhost' if is_loopback(host) else host}:{self._port}"

    async def close_port(self) -> None:
        """Accept no new connection. Those that are open are still answered."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def aclose(self) -> None:
        """Finish the answers under way and close every connection."""
        await self.close_port()
        await self._runner.cleanup()

    def _protocol(self) -> Protocol:
        manager = self._runner.server
        if manager is None:
            raise RuntimeError("the server is not running")
        return Protocol(
            self._admission,
            manager,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=self._config.keepalive_s,
            lingering_time=_LINGER_S,
            auto_decompress=False,  # bodies that say they are compressed are refused, not inflated first
        )
