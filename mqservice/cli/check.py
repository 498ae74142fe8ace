"""`mqservice check`: would the service start here, and on what would it stand?"""

import asyncio
import errno
import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import click
from rich.text import Text

from mqservice.cli.config import config_option, load_or_exit
from mqservice.cli.examples import examples
from mqservice.cli.output import json_option, print_table
from mqservice.config import Config, Loaded, RedisConfig, all_tokens, is_loopback, redacted
from mqservice.connections import Connections, open_redis
from mqservice.errors import ConfigError, EmbeddedError, MqError, Unavailable
from mqservice.inspection import ServerFacts, inspect, problems
from mqservice.log import stand_aside

_STYLES = {"ok": "green", "warning": "bold yellow", "problem": "bold red", "unreachable": "bold red"}


class Row(NamedTuple):
    """One finding. `unreachable` is a problem of its own, since it may pass by itself."""

    what: str
    state: Literal["ok", "warning", "problem", "unreachable"]
    text: str


@click.command(epilog=examples("mqservice check", "mqservice check --json"))
@config_option
@json_option
def check(path: Path | None, as_json: bool) -> None:
    """Check the configuration, Redis, the port and who may use it.

    Exit code 0: fine, or only warnings; 1: a problem; 2: wrong configuration; 3: Redis does not answer.
    """
    loaded = load_or_exit(path)
    stand_aside()  # standard output is for what was found
    rows = [_file_row(loaded), *asyncio.run(_redis_rows(loaded.config.redis))]
    rows += [port_row(loaded.config.http.host, loaded.config.http.port), _access_row(loaded.config)]
    code = _exit_code(rows)
    if as_json:
        click.echo(json.dumps({"exit": code, "rows": [row._asdict() for row in rows]}, indent=2))
    else:
        print_table(
            ("check", "", "finding"),
            [(row.what, Text(row.state, _STYLES[row.state]), row.text) for row in rows],
        )
    raise SystemExit(code)


def _file_row(loaded: Loaded) -> Row:
    if loaded.path is None:
        return Row("configuration", "ok", "no config.toml here: defaults and environment")
    return Row("configuration", "ok", str(loaded.path.absolute()))


async def _redis_rows(config: RedisConfig) -> list[Row]:
    """What can be said about Redis; joins our own server where the service would, and leaves it again."""
    try:
        url, embedded = await open_redis(config)
    except (Unavailable, EmbeddedError) as error:
        return [Row("redis", "unreachable", str(error))]
    except MqError as error:
        return [Row("redis", "problem", f"{redacted(config.url)}: {error}")]
    connections = Connections(url, config.deadline_s, 1)
    try:
        # Some twenty round trips: one deadline for them all, or a far Redis would fail by its distance.
        facts = await connections.guard(lambda: inspect(connections.commands), 4 * config.deadline_s)
    except Unavailable as error:
        return [Row("redis", "unreachable", f"{redacted(url)}: {error}")]
    except MqError as error:
        return [Row("redis", "problem", f"{redacted(url)}: {error}")]
    finally:
        await connections.aclose()
        if embedded is not None:
            embedded.leave()
    whose = "our own, " if embedded is not None else ""
    return [
        Row("redis", "ok", f"{whose}{redacted(url)}, answers in {facts.latency_ms:.2f} ms"),
        *_facts_rows(facts),
    ]


def _facts_rows(facts: ServerFacts) -> list[Row]:
    good = {
        "version": f"{facts.product} {facts.version}",
        "maxmemory-policy": facts.maxmemory_policy,
        "persistence": facts.persistence,
    }
    bad = {problem.subject: problem for problem in problems(facts)}
    return [
        Row(what, "problem" if bad[what].fatal else "warning", bad[what].text) if what in bad else Row(what, "ok", text)
        for what, text in good.items()
    ]


def _access_row(config: Config) -> Row:
    """Say who may use the service, and whether it would start with that."""
    try:
        tokens = all_tokens(config.auth)
    except ConfigError as error:
        return Row("access", "problem", str(error))
    if tokens:
        return Row("access", "ok", f"by token: {', '.join(sorted(tokens))}")
    if is_loopback(config.http.host):
        return Row("access", "ok", "everybody on this machine; there are no tokens")
    hint = "can be reached from other machines, and there are no tokens; `mqservice token ops` makes one"
    return Row("access", "problem", f"http.host = {config.http.host} {hint}")


def port_row(host: str, port: int) -> Row:
    """Say whether the service could listen there now. Binds for a moment, listens to nothing."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if port == 0:
        return Row("port", "ok", f"{host}, any free port")
    try:
        # Alone first: only that fails when another process of ours, which shares its port, is already there.
        with suppress(OSError):
            _bind(host, port, shared=False)
            return Row("port", "ok", f"{address} is free")
        _bind(host, port, shared=True)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            hint = "in use by another program; choose another with http.port or MQSERVICE_HTTP__PORT"
            return Row("port", "problem", f"{address} is {hint}")
        return Row("port", "problem", f"cannot listen on {address}: {error.strerror or error}")
    return Row("port", "ok", f"{address} is shared: a process that lets us join listens there already")


def _bind(host: str, port: int, *, shared: bool) -> None:
    """Bind and close a socket for each address of `host`, or raise OSError."""
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)


def _exit_code(rows: list[Row]) -> int:
    states = {row.state for row in rows}
    return 3 if "unreachable" in states else 1 if "problem" in states else 0
