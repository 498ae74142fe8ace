"""Who asks, and what they may: callers, scopes, and the restriction to some queues.

`gate` finds out who asks before the handler runs; handlers that show or touch more than the queue in their path ask
here. Without tokens everybody may do everything.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from aiohttp import web

from mqservice.config import Scope
from mqservice.web.problems import Refusal

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

Access = Literal["probe", "open", "token", Scope]
"""What a route wants: nothing at all, not even a known host; no token; any token; a token with this scope."""


@dataclass(frozen=True)
class Caller:
    """The owner of a token, or of a session that was opened with one."""

    name: str | None
    scopes: frozenset[str]
    queues: frozenset[str] | None = None
    """Only these; None: all, and what belongs to no queue."""
    digest: bytes = b""
    """SHA-256 of the token's secret."""
    rate_key: str = ""
    expires_s: int | None = None
    """End of the session, epoch seconds; None: it is the token itself."""


EVERYBODY: Final = Caller(None, frozenset(SCOPES))
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)


def caller(request: web.Request) -> Caller:
    """Return who asks."""
    found: Caller = request.get(CALLER, EVERYBODY)
    return found


def demand(request: web.Request, scope: Scope) -> None:
    """Raise Refusal when the caller lacks a scope that only some requests to the route need."""
    who = caller(request)
    if scope not in who.scopes:
        raise lacks(who, scope)


def sees(request: web.Request, queue: str) -> bool:
    """Tell whether the caller may know of a queue."""
    queues = caller(request).queues
    return queues is None or queue in queues


def demand_queue(request: web.Request, queue: str) -> None:
    """Raise Refusal when the caller is restricted to other queues."""
    if not sees(request, queue):
        raise restricted(caller(request))


def unauthorized(detail: str, error: str = "") -> Refusal:
    """Return the refusal of somebody unknown, with the challenge of RFC 6750."""
    challenge = 'Bearer realm="mqservice"' + (f', error="{error}"' if error else "")
    return Refusal("unauthorized", detail, {"WWW-Authenticate": challenge})


def lacks(who: Caller, scope: str) -> Refusal:
    """Return the refusal of a token without a scope."""
    challenge = f'Bearer realm="mqservice", error="insufficient_scope", scope="{scope}"'
    return Refusal("forbidden", f"token {who.name} lacks the scope {scope}", {"WWW-Authenticate": challenge})


def restricted(who: Caller) -> Refusal:
    """Return the refusal of a token that is for other queues. It does not tell whether this one exists."""
    names = ", ".join(sorted(who.queues or ()))
    return Refusal("forbidden", f"token {who.name} is for nothing but the queues: {names}")
