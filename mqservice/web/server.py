"""The HTTP listener: opens the port last, closes it first."""

import errno
import ipaddress

from aiohttp import web

from mqservice.config import HttpConfig
from mqservice.errors import ConfigError
from mqservice.web.app import application
from mqservice.web.context import Context

_SHUTDOWN_S = 5.0
"""How long answers under way may take once the listener is closed."""


class Server:
    """Serves the application on one port, which other processes may share (SO_REUSEPORT)."""

    def __init__(self, context: Context, config: HttpConfig) -> None:
        self._config = config
        self._runner = web.AppRunner(
            application(context, config),
            access_log=None,
            keepalive_timeout=config.keepalive_s,
            shutdown_timeout=_SHUTDOWN_S,
            handle_signals=False,
        )
        self._site: web.TCPSite | None = None

    async def start(self) -> None:
        """Open the port. Raises ConfigError when it is taken, or when anybody on the network could reach it."""
        host, port = self._config.host, self._config.port
        if not _is_loopback(host):
            raise ConfigError(
                f'http.host = "{host}" can be reached from other machines, and there are no tokens yet to tell '
                "friend from foe: use 127.0.0.1 and put a proxy with authentication in front"
            )
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, reuse_port=True, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            if error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
                raise ConfigError(f"http.port = {port}: {error.strerror}; try --port {port + 1}") from error
            raise
        self._site = site

    @property
    def url(self) -> str:
        """Where it listens, with the real port."""
        host, port = self._runner.addresses[0][:2]
        return f"http://{'localhost' if _is_loopback(host) else host}:{port}"

    async def close_port(self) -> None:
        """Accept no new connection. Those that are open are still answered."""
        if self._site is not None:
            site, self._site = self._site, None
            await site.stop()

    async def aclose(self) -> None:
        """Finish the answers under way and close every connection."""
        await self._runner.cleanup()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
