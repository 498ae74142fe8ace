"""TLS to Redis: one context for all connections of a process.

The driver makes a context per connection, which reads the system's CAs each time: 18 ms in which the event loop
stands still. And it trusts those beside the CA that is configured.
"""

import ssl
from functools import lru_cache
from typing import Any, Final

from redis.asyncio.connection import RedisSSLContext, SSLConnection

_OPTIONS: Final = (
    *("keyfile", "certfile", "password", "ca_certs", "ca_path", "ca_data"),
    *("check_hostname", "cert_reqs", "min_version", "ciphers"),
)


class TlsConnection(SSLConnection):
    """The driver's TLS connection, with a context of ours."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        chosen: RedisSSLContext = self.ssl_context
        chosen.context = _context(*(getattr(chosen, name) for name in _OPTIONS))


@lru_cache(maxsize=8)
def _context(
    key_file: str | None,
    cert_file: str | None,
    password: str | None,
    ca_file: str | None,
    ca_path: str | None,
    ca_data: str | None,
    check_hostname: bool,
    verify: ssl.VerifyMode,
    oldest: ssl.TLSVersion | None,
    ciphers: str | None,
) -> ssl.SSLContext:
    """Return a context that trusts the given CAs alone, or the system's when none is given. Raises OSError."""
    context = ssl.create_default_context(cafile=ca_file, capath=ca_path, cadata=ca_data)
    context.check_hostname = check_hostname
    context.verify_mode = verify
    if cert_file:
        context.load_cert_chain(cert_file, key_file, password)
    if oldest is not None:
        context.minimum_version = oldest
    if ciphers is not None:
        context.set_ciphers(ciphers)
    return context
