"""Sessions: how a browser comes in, which cannot send a header with every request."""

import time

from aiohttp import web

from mqservice.web.access import CALLER, SCOPES, Caller, caller, unauthorized
from mqservice.web.answers import Session, answer
from mqservice.web.context import CONTEXT
from mqservice.web.cookie import COOKIE, LIFE_S, seal


async def view(request: web.Request) -> web.Response:
    """Tell who one is: the name of the token, its scopes, and the queues that it is restricted to.

    Where no tokens are configured, everybody is nobody with all scopes.
    """
    return answer(_session(caller(request)))


async def create(request: web.Request) -> web.Response:
    """Open a session with a token, for 12 hours: its cookie does what the header Authorization does.

    No page can read the cookie, and browsers send it from our own pages alone. Changing or removing the token ends
    the session.
    """
    who = request.get(CALLER)
    if who is None:
        return answer(_session(caller(request)))  # no tokens are configured, so none is needed
    if who.expires_s is not None:
        raise unauthorized("a session is opened with the token itself, not with another session")
    expires_s = int(time.time()) + LIFE_S
    response = answer(_session(who, expires_s))
    # Set by scripts of our own pages, which say their origin: over TLS the cookie must not leave it.
    over_tls = request.headers.get("Origin", "").startswith("https://")
    value = seal(who, request.app[CONTEXT].session_key, expires_s)
    response.set_cookie(COOKIE, value, max_age=LIFE_S, httponly=True, samesite="Strict", secure=over_tls)
    return response


async def delete(_request: web.Request) -> web.Response:
    """Leave the session: the browser forgets its cookie."""
    response = web.Response(status=204)
    response.del_cookie(COOKIE, httponly=True, samesite="Strict")
    return response


def _session(who: Caller, expires_s: int | None = None) -> Session:
    return Session(
        name=who.name,
        scopes=[scope for scope in SCOPES if scope in who.scopes],
        queues=None if who.queues is None else sorted(who.queues),
        expires_s=who.expires_s if expires_s is None else expires_s,
    )
