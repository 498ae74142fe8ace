"""The commands that look at things: check and config show, as processes."""

import json
import os
import socket
import subprocess
import sys

import redis


def run(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mqservice", *args],
        env={**os.environ, "COLUMNS": "160", **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def on(url: str) -> dict[str, str]:
    return {"MQSERVICE_REDIS__URL": url, "MQSERVICE_REDIS__EMBEDDED": "never", "MQSERVICE_HTTP__PORT": "0"}


def test_check_when_all_is_well_then_exit_0_and_persistence_is_said(url: str) -> None:
    checked = run("check", **on(url))
    assert checked.returncode == 0, checked.stderr
    assert "append-only file, fsync everysec" in checked.stdout
    assert "noeviction" in checked.stdout


def test_check_when_redis_would_evict_then_a_loud_warning(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            checked = run("check", "--json", **on(url))
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert checked.returncode == 0
    (row,) = [row for row in json.loads(checked.stdout)["rows"] if row["what"] == "maxmemory-policy"]
    assert "allkeys-lru" in row["text"]
    assert row["state"] == "warning"


def test_check_when_nothing_answers_then_exit_3() -> None:
    assert run("check", **on("redis://localhost:1/0")).returncode == 3


def test_check_when_the_port_is_taken_then_exit_1(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        environ = {**on(url), "MQSERVICE_HTTP__PORT": str(other.getsockname()[1])}
        checked = run("check", **environ)
    assert checked.returncode == 1
    assert "in use" in checked.stdout or "taken" in checked.stdout


def test_config_show_when_a_variable_is_set_then_its_origin_is_named_and_passwords_are_hidden() -> None:
    shown = run("config", "show", MQSERVICE_REDIS__URL="redis://:secret@localhost:1/0")
    assert shown.returncode == 0
    assert "environment MQSERVICE_REDIS__URL" in shown.stdout
    assert "secret" not in shown.stdout


def test_command_when_a_key_is_misspelt_then_exit_2_and_the_nearest_is_named() -> None:
    for command in (["check"], ["config", "show"]):
        answer = run(*command, MQSERVICE_REDIS__ULR="x")
        assert answer.returncode == 2
        assert "MQSERVICE_REDIS__URL" in answer.stderr
