"""What a route is: how it is reached, who handles it, and what the API's description says of it."""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from aiohttp import web
from msgspec import Struct

from mqservice.web.access import Access
from mqservice.web.problems import PROBLEMS

HTML: Final = "text/html"
TEXT: Final = "text/plain"


class Events(NamedTuple):
    """What a stream of server-sent events has: name of an event → the type of its data, JSON."""

    kinds: Mapping[str, type[Struct]]


class Answer(NamedTuple):
    """An answer that is no problem: when it comes, what it holds, which headers it always has."""

    description: str
    content: Any = None
    """The type that its JSON has; or a str, its media type; or Events; None: nothing is in it."""
    headers: tuple[str, ...] = ()


class Header(NamedTuple):
    """A request header that matters to a route."""

    name: str
    description: str
    schema: Mapping[str, Any]


class Body(NamedTuple):
    """A request body. `content`: media type → the type of its JSON, or its schema."""

    description: str
    content: Mapping[str, Any]
    curl: str
    """The arguments of curl that send one."""


@dataclass(frozen=True)
class Route:
    """One route, of which there is one instance, in `routes`."""

    method: str
    path: str
    handler: Callable[..., Awaitable[web.StreamResponse]]
    """Called with the request, and with its parsed query when there is one."""
    tag: str
    answers: Mapping[int, Answer]
    access: Access = field(kw_only=True)
    """What a caller must show, and the scope that its token must have. No route can be without."""
    query: type[Struct] | None = None
    """None: whatever the query string says is ignored."""
    headers: tuple[Header, ...] = ()
    body: Body | None = None
    problems: tuple[str, ...] = ()
    """Codes of its own; `codes` has those that follow from the rest."""
    example: str = ""
    """A query string that makes sense."""
    filters_queues: bool = False
    """Its handler shows and touches only what the caller may see. Of other routes without `{queue}` in their path,
    callers that are restricted to some queues are refused."""
    names: tuple[str, ...] = field(init=False)
    """The variables in its path."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(re.findall(r"{(\w+)[}:]", self.path)))

    @property
    def changes(self) -> bool:
        """Whether it may change anything, as the tutorial's two GETs do: then foreign pages are refused."""
        return self.method not in ("GET", "HEAD") or self.access in ("send", "work", "admin")

    @property
    def needs_token(self) -> bool:
        """Whether one must show a token, where there are any."""
        return self.access not in ("probe", "open")

    @property
    def plain_path(self) -> str:
        """The path as the description has it: `{id:[^/]+}` is `{id}`."""
        return re.sub(r"{(\w+):[^}]*}", r"{\1}", self.path)

    @property
    def operation(self) -> str:
        """A name that no other route has, such as `messages.send`."""
        name = f"{self.handler.__module__.rpartition('.')[2]}.{self.handler.__name__}"
        return f"{name}.head" if self.method == "HEAD" else name

    @property
    def summary(self) -> str:
        """The first paragraph of the handler's docstring."""
        return self._doc()[0]

    @property
    def description(self) -> str:
        """What follows it."""
        return "\n\n".join(self._doc()[1:])

    @property
    def codes(self) -> tuple[str, ...]:
        """Every problem that it may answer with, by status."""
        codes = set(self.problems)
        if self.access != "probe":
            codes |= {"misdirected", "rate-limited"}
        if self.needs_token:
            codes |= {"unauthorized", "forbidden"}
        if self.changes:
            codes.add("cross-site")
        if self.path.startswith("/v1/"):
            codes |= {"unavailable", "out-of-memory", "misconfigured"}
        if self.names and self.query is not None:
            codes.add("invalid-name")
        if "queue" in self.names:
            codes.add("wrong-type")
        if self.query is not None or self.headers:
            codes.add("invalid-parameter")
        if self.body is not None:
            codes |= {"body-timeout", "body-too-large", "too-much-at-once", "unsupported-encoding", "unsupported-type"}
        return tuple(sorted(codes, key=lambda code: (PROBLEMS[code].status, code)))

    def _doc(self) -> list[str]:
        return [" ".join(part.split()) for part in (inspect.getdoc(self.handler) or "").split("\n\n")]
