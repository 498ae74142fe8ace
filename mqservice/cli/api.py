"""What commands that speak to a running service share: where it is, and arguments that complete themselves."""

import functools
import math
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import click

from mqservice.client import Client, path_of
from mqservice.errors import MqError

DEFAULT_URL: Final = "http://localhost:5000"
_COMPLETION_S: Final = 0.3
_YEAR_S: Final = 31_536_000
_DURATION: Final = re.compile(r"([0-9]{1,10}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_UNIT_S: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, None: 1}


def with_api(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command its first argument, a client of the service that --url, or the environment, names."""

    @click.option(
        "--url",
        envvar="MQSERVICE_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        help="Address of the service.",
    )
    @click.option(
        "--token",
        envvar="MQSERVICE_TOKEN",
        default="",
        show_envvar=True,
        help="Who you are. Rather in the environment: others on this machine see the arguments of a command.",
    )
    @functools.wraps(command)
    def run(*args: Any, url: str, token: str, **kwargs: Any) -> None:
        with Client(url, token) as api:
            command(api, *args, **kwargs)

    return run


class DurationType(click.ParamType[float]):
    """Seconds (`5`, `0.5`), or a number with its unit: `500ms`, `10s`, `5m`, `2h`, `1d`. Becomes float seconds."""

    name = "duration"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return what stands for it in a usage line."""
        return "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse, or fail with what is expected."""
        match = _DURATION.fullmatch(str(value))
        seconds = float(match[1]) * _UNIT_S[match[2]] if match else math.nan
        if not 0 <= seconds <= _YEAR_S:
            self.fail(f"{value!r} is no time: expected such as 500ms, 10s, 5m, 2h, at most a year", param, ctx)
        return round(seconds, 3)


DURATION: Final = DurationType()


def complete_queue(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the queues that begin so; nothing when the service does not say within 300 ms."""
    return [name for name in _names(ctx, "queues") if name.startswith(incomplete)]


def complete_schedule(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the schedules that begin so, as `complete_queue`."""
    return [name for name in _names(ctx, "schedules") if name.startswith(incomplete)]


queue_argument = click.argument("queue", shell_complete=complete_queue)


def _names(ctx: click.Context, what: str) -> list[str]:
    found: list[str] = []

    def ask() -> None:
        with suppress(MqError, KeyError, TypeError, ValueError), Client(url, token) as api:
            answer = api.call("GET", path_of("v1", what), timeout_s=_COMPLETION_S)
            found.extend(each["name"] for each in answer.json[what])

    url, token = ctx.params.get("url") or DEFAULT_URL, ctx.params.get("token") or ""
    # A thread, since looking up a host name and a trickle of bytes obey no deadline.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_COMPLETION_S)
    return [] if asking.is_alive() else found
