"""`mqservice token`, and binding off this machine: as a user does both."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from mqservice.cli.check import check
from mqservice.cli.token import token
from mqservice.config import all_tokens, load
from tests.commands import mq
from tests.processes import ROOT, fetch, serving


def make(*args: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(token, args)
    return result.exit_code, result.stdout, result.stderr


def secret_of(err: str) -> str:
    return err.splitlines()[0].rpartition(" ")[2]


def test_token_when_made_then_stdout_is_toml_with_the_hash_and_stderr_has_the_secret() -> None:
    code, out, err = make("shop", "--scope", "read", "--scope", "send", "--queue", "a.b", "--queue", "mails")
    secret = secret_of(err)
    assert code == 0
    assert secret.startswith("mq_")
    assert len(secret) > 40
    assert secret not in out
    assert tomllib.loads(out)["auth"]["tokens"] == [
        {
            "name": "shop",
            "sha256": hashlib.sha256(secret.encode()).hexdigest(),
            "scopes": ["send", "read"],
            "queues": ["a.b", "mails"],
        }
    ]


def test_token_when_made_twice_then_the_secrets_differ_and_one_file_takes_both(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text((ROOT / "config.toml").read_text())
    made = [make(name) for name in ("one", "two")]
    with path.open("a") as file:
        file.writelines(out for _, out, _ in made)
    assert secret_of(made[0][2]) != secret_of(made[1][2])
    tokens = all_tokens(load(path, {}).config.auth)
    assert {name: token.scopes for name, token in tokens.items()} == {
        "one": ("send", "read", "work", "admin"),
        "two": ("send", "read", "work", "admin"),
    }


def test_token_when_asked_for_json_then_all_of_it_is_on_stdout() -> None:
    code, out, err = make("ops", "--json")
    made = json.loads(out)
    assert (code, err) == (0, "")
    assert made["sha256"] == hashlib.sha256(made["secret"].encode()).hexdigest()


@pytest.mark.parametrize("args", [["a b"], ["ops", "--queue", "a/b"], ["ops", "--scope", "all"], []])
def test_token_when_the_name_or_scope_is_none_then_exit_2(args: list[str]) -> None:
    assert make(*args)[0] == 2


def test_serve_when_off_loopback_without_a_token_then_exit_2_with_the_lines_to_add(url: str) -> None:
    with serving(url, "--host", "0.0.0.0") as served:
        assert served.exit_code() == 2
        said = "\n".join(served.err)
    assert "mqservice token ops" in said
    lines = said[said.index("[[auth.tokens]]") :]
    (example,) = tomllib.loads(lines)["auth"]["tokens"]
    assert set(example) == {"name", "sha256", "scopes"}


def test_serve_when_off_loopback_with_a_token_then_only_that_opens_it(url: str, tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    made = subprocess.run(
        [sys.executable, "-m", "mqservice", "token", "ops"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    (tmp_path / "tokens.toml").write_text(made.stdout)
    secret = secret_of(made.stderr)
    with serving(url, "--host", "0.0.0.0", MQSERVICE_AUTH__TOKEN_FILE=str(tmp_path / "tokens.toml")) as served:
        served.started()
        port = served.url.rpartition(":")[2]
        for host in {"127.0.0.1", _own_address()}:
            at = f"http://{host}:{port}"
            assert fetch(f"{at}/livez")[0] == 200
            assert mq(at, "queues").returncode == 1
            assert mq(at, "queues", token=secret).returncode == 0
            assert fetch(f"{at}/v1/queues")[0] == 401
            assert fetch(f"{at}/prodcons")[0] == 401
            assert fetch(f"{at}/v1/queues", headers={"Authorization": f"Bearer {secret}"})[0] == 200
            assert fetch(f"{at}/prodcons", headers={"Authorization": f"Bearer {secret}"})[0] == 302


@pytest.mark.parametrize(
    ("host", "tokens", "code", "says"),
    [
        ("127.0.0.1", False, 0, "everybody on this machine"),
        ("127.0.0.1", True, 0, "by token: ops"),
        ("0.0.0.0", True, 0, "by token: ops"),
        ("0.0.0.0", False, 1, "mqservice token ops"),
    ],
)
def test_check_when_asked_then_it_says_who_may_use_the_service(
    url: str, tmp_path: Path, host: str, tokens: bool, code: int, says: str
) -> None:
    environ = {"MQSERVICE_REDIS__URL": url, "MQSERVICE_HTTP__HOST": host, "MQSERVICE_HTTP__PORT": "0"}
    if tokens:
        (tmp_path / "tokens.toml").write_text(make("ops")[1])
        environ["MQSERVICE_AUTH__TOKEN_FILE"] = str(tmp_path / "tokens.toml")
    result = CliRunner().invoke(check, ["--json"], env=environ)
    (row,) = [row for row in json.loads(result.stdout)["rows"] if row["what"] == "access"]
    assert (result.exit_code, says in row["text"]) == (code, True), row


def _own_address() -> str:
    """An address of this machine by which others would call it; nothing is sent to find it out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def test_serve_when_the_token_file_is_wrong_then_exit_2_and_it_is_named(url: str) -> None:
    with serving(url, MQSERVICE_AUTH__TOKEN_FILE="/gone/tokens.toml") as served:
        assert served.exit_code() == 2
        assert any("/gone/tokens.toml" in line for line in served.err)
