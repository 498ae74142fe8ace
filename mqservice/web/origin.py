"""Foreign pages are kept out: those whose name was bent to our address, and those that let a browser ask us.

DNS rebinding: a page of evil.example, whose name suddenly means 127.0.0.1, is of our origin to the browser. Only the
header Host gives it away. A page of any other origin can still send without reading the answer; browsers say so in
Sec-Fetch-Site, and where they do not (plain HTTP off this machine), in Origin. Other clients send neither.
"""

import ipaddress
from functools import lru_cache
from typing import Final

from aiohttp import web

from mqservice.config import HttpConfig
from mqservice.web.problems import Refusal

_OWN_SITE: Final = frozenset({"same-origin", "none"})
"""What browsers say of our own pages, and of what a person typed. Not same-site: another port may be anybody's."""


class Origins:
    """The names that are ours."""

    def __init__(self, config: HttpConfig) -> None:
        self._trusted = frozenset(host.lower() for host in config.hosts)
        self._names = self._trusted | {"localhost", config.host.lower()}
        # A client names the same few hosts all the time.
        self._is_ours = lru_cache(maxsize=256)(self._judge)

    def check_host(self, request: web.Request) -> None:
        """Refuse a request that was meant for another host. HTTP/1.0 need not say for which; browsers always do."""
        host = request.headers.get("Host")
        if host is not None and not self._is_ours(host):
            name = _name(host)[:100]
            raise Refusal("misdirected", f"no host {name!r} is here; if it is meant to be, add it to http.hosts")

    def check_site(self, request: web.Request) -> None:
        """Refuse what a page of another origin lets a browser ask."""
        headers = request.headers
        site = headers.get("Sec-Fetch-Site")
        if site is not None:
            if site in _OWN_SITE:
                return
            raise Refusal("cross-site", f"Sec-Fetch-Site {site[:20]!r}: only our own pages may do this")
        origin = headers.get("Origin")
        if origin is not None and not self._is_own(origin, headers.get("Host", "")):
            raise Refusal("cross-site", f"Origin {origin[:100]!r}: only our own pages may do this")

    def _is_own(self, origin: str, host: str) -> bool:
        authority = origin.partition("://")[2].lower()
        return bool(authority) and (authority == host.lower() or _name(authority) in self._trusted)

    def _judge(self, host: str) -> bool:
        """Addresses are ours whichever they are: nobody can bend one. But 0.0.0.0 is this machine to some browsers."""
        name = _name(host)
        if name in self._names:
            return True
        try:
            return not ipaddress.ip_address(name).is_unspecified
        except ValueError:
            return False


def _name(authority: str) -> str:
    """Return the host of `host:port` in lower case, without the brackets of IPv6."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0].lower().removesuffix(".")
