"""What a request must pass before its handler runs: known host, own page, token, rate, scope, queue.

Which of these a route needs is decided once, when the application is made: what is off costs nothing.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from math import ceil
from typing import Final

from aiohttp import web
from msgspec import UNSET

from mqservice.config import HttpConfig, Token
from mqservice.web.access import CALLER, Caller, lacks, restricted, unauthorized
from mqservice.web.cookie import COOKIE, opened_by
from mqservice.web.origin import Origins
from mqservice.web.problems import Refusal
from mqservice.web.rate import Limiter, address_key
from mqservice.web.route import Route

Check = Callable[[web.Request], None]
"""Raises Refusal."""

_SCHEME: Final = "bearer"


class Gate:
    """The checks of all routes. `session_key` returns the key that signs the sessions' cookies."""

    def __init__(self, config: HttpConfig, tokens: Mapping[str, Token], session_key: Callable[[], bytes]) -> None:
        self._origins = Origins(config)
        self._limiter = Limiter(config.rate_per_s, config.rate_burst) if config.rate_per_s else None
        self._callers = {name: _caller(name, token) for name, token in tokens.items()}
        self._digests = tuple((each.digest, each) for each in self._callers.values())
        self._session_key = session_key

    def checks(self, route: Route) -> tuple[Check, ...]:
        """Return what a request to the route must pass, in this order."""
        if route.access == "probe":
            return ()
        found: list[Check] = [self._origins.check_host]
        if route.changes:
            found.append(self._origins.check_site)
        if self._callers and route.access != "open":
            found.append(self._admission(route))
        elif self._limiter is not None:
            found.append(self._limit_address)
        return tuple(found)

    def _admission(self, route: Route) -> Check:
        """Return the check of token, rate, scope and queue."""
        scope = None if route.access == "token" else route.access
        of_queue, shows_own = "queue" in route.names, route.filters_queues

        def admit(request: web.Request) -> None:
            who = self._who(request)
            if self._limiter is not None:
                self._limit(self._limiter, who.rate_key if who else address_key(request.remote))
            if who is None:
                raise _stranger(request)
            if scope is not None and scope not in who.scopes:
                raise lacks(who, scope)
            if who.queues is not None and not (request.match_info["queue"] in who.queues if of_queue else shows_own):
                raise restricted(who)
            request[CALLER] = who

        return admit

    def _who(self, request: web.Request) -> Caller | None:
        """Return whose token or session the request shows, None when neither is good."""
        secret = _secret(request)
        if secret is not None:
            return self._owner(secret)
        value = request.cookies.get(COOKIE)
        return None if value is None else opened_by(value, self._callers, self._session_key())

    def _owner(self, secret: str) -> Caller | None:
        """Return the owner of a secret. As long for one that is nearly right, or the last, as for any other."""
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, who in self._digests:
            if hmac.compare_digest(known, digest):
                found = who
        return found

    def _limit_address(self, request: web.Request) -> None:
        if self._limiter is not None:
            self._limit(self._limiter, address_key(request.remote))

    @staticmethod
    def _limit(limiter: Limiter, key: str) -> None:
        wait_s = limiter.take(key)
        if wait_s > 0:
            detail = f"more than {limiter.rate_per_s:g} requests a second"
            raise Refusal("rate-limited", detail, {"Retry-After": str(ceil(wait_s))})


def _secret(request: web.Request) -> str | None:
    """Return what stands behind Bearer, None when another scheme or none is used: a proxy may have its own."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == _SCHEME else None


def _stranger(request: web.Request) -> Refusal:
    if _secret(request) is not None:
        return unauthorized("this token is not known here", "invalid_token")
    if COOKIE in request.cookies:
        return unauthorized("the session has ended: open another with POST /v1/session", "invalid_token")
    return unauthorized("a token is needed: -H 'Authorization: Bearer …'")


def _caller(name: str, token: Token) -> Caller:
    queues = None if token.queues is UNSET else frozenset(token.queues)
    return Caller(name, frozenset(token.scopes), queues, bytes.fromhex(token.sha256), f"token {name}")
