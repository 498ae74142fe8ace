"""Canaries: secrets that real processes are given, and that nothing they print or answer may hold."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from rich.pretty import pretty_repr

from mqservice.config import Config, RedisConfig
from mqservice.embedded import _binary
from tests.processes import ROOT, Served, fetch, serving
from tests.waiting import wait_for

PASSWORD = "canary-p4ssw0rd"
SECRET = "mq_canary-s3cret"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()
CANARIES = (PASSWORD, SECRET, DIGEST)
TOKENS = f"""
[[auth.tokens]]
name = "ops"
sha256 = "{DIGEST}"
scopes = ["send", "read", "work", "admin"]
"""
BEARER = {"Authorization": f"Bearer {SECRET}"}


@pytest.fixture
def tokens(tmp_path: Path) -> str:
    (tmp_path / "tokens.toml").write_text(TOKENS)
    return str(tmp_path / "tokens.toml")


@pytest.fixture
def guarded_url(url: str) -> Iterator[str]:
    """The URL of a server that wants the password."""
    with redis.Redis.from_url(url) as admin:
        admin.execute_command("ACL", "SETUSER", "canary", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        yield url.replace("unix://", f"unix://canary:{PASSWORD}@")
        admin.acl_deluser("canary")


def check(*texts: str) -> None:
    for text in texts:
        assert [canary for canary in CANARIES if canary in text] == []


def said(served: Served) -> str:
    return "\n".join([*served.out, *served.err])


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_service_when_it_is_asked_well_and_badly_then_no_secret_shows(
    guarded_url: str, url: str, tokens: str, log_format: str
) -> None:
    environ = {"MQSERVICE_AUTH__TOKEN_FILE": tokens, "MQSERVICE_LOG__LEVEL": "debug"}
    with serving(guarded_url, MQSERVICE_LOG__FORMAT=log_format, **environ) as served:
        served.started()
        answers = []
        paths = ("/docs", "/openapi.json", "/v1/queues", "/v1/session", "/nowhere", "/v1/queues/a%20b", "/metrics")
        shown = ({}, BEARER, {"Authorization": f"Bearer x{SECRET}"}, {"Authorization": f"Basic {SECRET}"})
        answers += [fetch(served.url + path, headers=headers)[1] for path in paths for headers in shown]
        answers.append(fetch(f"{served.url}/v1/queues?token={SECRET}", headers=BEARER)[1])
        answers.append(fetch(served.url + "/v1/session", "POST", BEARER)[1])
        with redis.Redis.from_url(url) as admin:
            admin.execute_command("ACL", "SETUSER", "canary", "resetpass", ">other")
            for client in admin.client_list():
                if client["user"] == "canary":
                    admin.client_kill_filter(_id=client["id"])
            answers.append(fetch(served.url + "/v1/queues", headers=BEARER)[1])
            wait_for(lambda: "invalid username-password" in said(served), 15)
            admin.execute_command("ACL", "SETUSER", "canary", f">{PASSWORD}")
        wait_for(lambda: fetch(served.url + "/v1/queues", headers=BEARER)[0] == 200, 15)
        served.signal(signal.SIGTERM)
        assert served.exit_code() == 0
        check(*answers, said(served))


def test_service_when_redis_is_killed_then_no_secret_shows(tmp_path: Path, tokens: str) -> None:
    own = _own_server(tmp_path / "server")
    pid, socket_path = next(own)
    environ = {"MQSERVICE_AUTH__TOKEN_FILE": tokens, "MQSERVICE_LOG__FORMAT": "console"}
    with serving(f"unix://canary:{PASSWORD}@{socket_path}?db=5", **environ) as served:
        served.started()
        os.kill(pid, signal.SIGKILL)
        status, body = fetch(served.url + "/v1/queues", headers=BEARER)
        assert status == 503
        wait_for(lambda: "redis away" in said(served), 10)
        check(body, said(served))
        served.signal(signal.SIGTERM)
        served.exit_code(30)
        check(said(served))
    next(own, None)


def _own_server(directory: Path) -> Iterator[tuple[int, str]]:
    """A bare server that nobody starts again; yields its pid and socket."""
    directory.mkdir()
    path = str(directory / "s")
    command = [str(_binary()), "--port", "0", "--unixsocket", path, "--save", "", "--dir", str(directory)]
    process = subprocess.Popen(
        [*command, "--user", "canary", "on", f">{PASSWORD}", "~*", "&*", "+@all"], stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: Path(path).exists(), 10)
        yield process.pid, path
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda url: f"redis://me:{PASSWORD}@localhost:1/5",
        lambda url: f"redis://me:{PASSWORD}@no-such-host.invalid/5",
        lambda url: f"rediss://me:{PASSWORD}@localhost:1/5",
        lambda url: url.replace("unix://", f"unix://nobody:{PASSWORD}@"),
        lambda url: url.replace("unix://", f"unix://nobody:{PASSWORD}@").replace("server.sock", "gone.sock"),
        lambda url: f"redi://me:{PASSWORD}@localhost/5",
        lambda url: f"redis://me:{PASSWORD}@localhost:99999999/5",
        lambda url: f"redis://localhost:1/5?password={PASSWORD}",
        lambda url: f"redis://:{PASSWORD}@@localhost:1/5",
    ],
)
def test_command_when_the_url_is_wrong_then_it_fails_and_no_secret_shows(
    url: str, tokens: str, wrong: Callable[[str], str]
) -> None:
    environ = {
        "MQSERVICE_REDIS__URL": wrong(url),
        "MQSERVICE_REDIS__EMBEDDED": "never",
        "MQSERVICE_HTTP__PORT": "0",
        "MQSERVICE_AUTH__TOKEN_FILE": tokens,
    }
    for command in (["serve"], ["check"], ["check", "--json"], ["config", "show"], ["config", "show", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "mqservice", *command],
            cwd=ROOT,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode != 0 or command[0] == "config"
        assert "Traceback" not in done.stderr
        check(done.stdout, done.stderr)


def test_config_show_when_the_file_has_tokens_then_not_even_their_hash_shows(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'[redis]\nurl = "redis://:{PASSWORD}@h"\n{TOKENS}')
    for more in ([], ["--json"]):
        command = [sys.executable, "-m", "mqservice", "config", "show", *more]
        shown = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "auth.tokens.ops.sha256" in shown.stdout
        check(shown.stdout, shown.stderr)


def test_configuration_when_a_traceback_shows_local_variables_then_it_hides_the_password() -> None:
    """As where a program has set up no logging: structlog then prints the variables of every frame."""
    config = Config(redis=RedisConfig(url=f"redis://me:{PASSWORD}@h"))
    check(repr(config), repr(config.redis), pretty_repr(config))
