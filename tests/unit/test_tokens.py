"""Tokens in the configuration: what they are, where they come from, what is said of wrong ones."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mqservice.config import AuthConfig, Config, Token, all_tokens, load
from mqservice.errors import ConfigError

ONE, TWO = "1" * 64, "ab" * 32
SECRET = "mq_pasted-by-mistake"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "config.toml") -> Path:
        (tmp_path / name).write_text(text)
        return Path(name)

    return write


def token(name: str = "ops", sha256: str = ONE, more: str = "") -> str:
    return f'[[auth.tokens]]\nname = "{name}"\nsha256 = "{sha256}"\nscopes = ["read", "send"]\n{more}\n'


def complaint(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        all_tokens(load(path, {}).config.auth)
    return str(caught.value)


def test_tokens_when_none_are_configured_then_there_are_none() -> None:
    assert all_tokens(Config().auth) == {}


def test_tokens_when_configured_then_they_are_known_by_name(write: Write) -> None:
    config = load(write(token() + token("a.b", TWO, 'queues = ["mails"]')), {}).config
    tokens = all_tokens(config.auth)
    assert tokens == {
        "ops": Token(sha256=ONE, scopes=("read", "send")),
        "a.b": Token(sha256=TWO, scopes=("read", "send"), queues=("mails",)),
    }


def test_tokens_when_in_a_file_of_their_own_then_they_join_those_of_the_configuration(write: Write) -> None:
    write(token("ci", TWO), "tokens.toml")
    path = write('[auth]\ntoken_file = "tokens.toml"\n' + token())
    assert list(all_tokens(load(path, {}).config.auth)) == ["ops", "ci"]
    environ = {"MQSERVICE_AUTH__TOKEN_FILE": "tokens.toml"}
    assert list(all_tokens(load(write(""), environ).config.auth)) == ["ci"]


def test_tokens_when_listed_then_the_hash_is_hidden(write: Write) -> None:
    rows = load(write(token()), {}).rows()
    assert ("auth.tokens.ops.sha256", "***", "file config.toml") in rows
    assert ("auth.tokens.ops.scopes", ("read", "send"), "file config.toml") in rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (token(more='queues = "mails"'), 'auth.tokens.ops.queues = "mails" (file config.toml): expected a list'),
        (token(more="queues = []"), "auth.tokens.ops.queues = a list (file config.toml): expected a list"),
        (token(more='queues = ["a b"]'), "auth.tokens.ops.queues = a list (file config.toml): expected a list"),
        (token(more="scope = 1"), 'unknown key "auth.tokens.ops.scope" in config.toml; did you mean'),
        (token("a b"), "auth.token 'a b' is not a name"),
        (token() + token(), 'auth.tokens[1].name = "ops" (file config.toml): this name stands there twice'),
        (token() + token("ci"), "auth.tokens.ci.sha256: token ops has the same secret; each needs its own"),
        ('[[auth.tokens]]\nname = "ops"', "auth.tokens.ops.sha256: a token needs its sha256; `mqservice token ops`"),
        (f'[[auth.tokens]]\nname = "ops"\nsha256 = "{ONE}"', "auth.tokens.ops.scopes: a token needs its scopes"),
        (f'[[auth.tokens]]\nsha256 = "{ONE}"', "auth.tokens[0].name (file config.toml): every [[auth.tokens]] needs"),
        ("[auth.tokens]", "auth.tokens (file config.toml): expected an array of tables, [[auth.tokens]]"),
        ('[auth]\ntoken_file = "gone.toml"', "cannot read gone.toml: No such file or directory"),
        (
            token().replace('"send"', '"sned"'),
            'auth.tokens.ops.scopes = a list (file config.toml): expected a list of "send", "read", "work", "admin"',
        ),
    ],
)
def test_tokens_when_wrong_then_the_error_names_the_key(write: Write, text: str, expected: str) -> None:
    assert complaint(write(text)).startswith(expected)


def test_tokens_when_the_secret_stands_where_its_hash_belongs_then_the_error_does_not_repeat_it(write: Write) -> None:
    text = complaint(write(token(sha256=SECRET)))
    assert SECRET not in text
    assert text.startswith('auth.tokens.ops.sha256 = "***" (file config.toml): expected the SHA-256 of the secret')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 'auth.token_file = "tokens.toml": there is no [[auth.tokens]] in it'),
        ("[http]\nport = 1\n" + token(), "expected [[auth.tokens]] alone, found http.port"),
        (token(), 'auth.token_file = "tokens.toml": config.toml has a token "ops" as well'),
    ],
)
def test_token_file_when_wrong_then_the_error_names_it(write: Write, text: str, expected: str) -> None:
    write(text, "tokens.toml")
    assert expected in complaint(write('[auth]\ntoken_file = "tokens.toml"\n' + token()))


def test_tokens_when_the_hash_is_in_capitals_then_it_is_the_same(write: Write) -> None:
    text = token(sha256=TWO) + token("ci", TWO.upper())
    assert "has the same secret" in complaint(write(text))


def test_hosts_when_in_the_environment_then_commas_part_them() -> None:
    assert load(environ={"MQSERVICE_HTTP__HOSTS": "mq.example, mq"}).config.http.hosts == ("mq.example", "mq")
    with pytest.raises(ConfigError, match=r"http.hosts = a list .*: expected a list of host names"):
        load(environ={"MQSERVICE_HTTP__HOSTS": "http://mq.example"})


def test_auth_config_when_made_by_hand_then_it_holds_tokens_by_name() -> None:
    known = Token(sha256=ONE, scopes=("read",))
    assert all_tokens(AuthConfig(tokens={"ops": known})) == {"ops": known}
