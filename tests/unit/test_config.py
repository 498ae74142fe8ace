"""The configuration: sources, precedence, origins, and what its complaints say."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mqservice.cli.config import config as config_command
from mqservice.config import ChannelOptions, Config, QueueConfig, load, redacted
from mqservice.config.sections import KEYS, NAMED
from mqservice.errors import ConfigError, InvalidName

SHIPPED = Path(__file__).parents[2] / "config.toml"

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MQSERVICE_CONFIG", raising=False)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        (tmp_path / "config.toml").write_text(text)
        return Path("config.toml")

    return write


def complaint(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, tuple[str, object]] | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {}, flags)
    return str(caught.value)


# Sources


def test_load_when_nothing_is_given_then_every_value_is_its_default() -> None:
    loaded = load(environ={})
    assert loaded.config == Config()
    assert loaded.path is None
    assert set(loaded.origins.values()) == {"default"}


def test_load_when_nothing_is_given_then_every_key_has_an_origin() -> None:
    expected = {f"{section}.{key}" for section, keys in KEYS.items() if section not in NAMED for key in keys}
    assert set(load(environ={}).origins) == expected


def test_shipped_file_when_loaded_then_it_holds_every_key_with_its_default() -> None:
    loaded = load(SHIPPED, environ={})
    assert set(loaded.origins.values()) == {f"file {SHIPPED}"}
    assert loaded.config == Config(queues=loaded.config.queues, channels=loaded.config.channels)
    assert loaded.config.queue_options("prodcons").key == "task:prodcons:queue"
    assert loaded.config.channel_options("pubsub").key == "task:pubsub:channel"


def test_shipped_file_when_read_then_every_key_has_a_line_of_why() -> None:
    lines = [line for line in SHIPPED.read_text().splitlines() if re.match(r"\w+ *=", line)]
    # redis.url, queues and channels included: no key without a reason.
    assert [line for line in lines if "#" not in line] == []


def test_load_when_all_sources_set_a_key_then_the_later_wins(write: Write) -> None:
    path = write("[http]\nport = 1\n[redis]\npool = 2\n[log]\nlevel = 'debug'")
    environ = {"MQSERVICE_HTTP__PORT": "3", "MQSERVICE_REDIS__POOL": "4"}
    loaded = load(path, environ, {"http.port": ("--port", 5)})
    assert (loaded.config.http.port, loaded.config.redis.pool, loaded.config.log.level) == (5, 4, "debug")
    assert loaded.origins["http.port"] == "flag --port"
    assert loaded.origins["redis.pool"] == "environment MQSERVICE_REDIS__POOL"
    assert loaded.origins["log.level"] == "file config.toml"
    assert loaded.origins["http.host"] == "default"


def test_load_when_a_flag_is_none_then_it_counts_as_not_given() -> None:
    assert load(environ={}, flags={"http.port": ("--port", None)}).origins["http.port"] == "default"


def test_load_when_no_path_is_given_then_the_file_of_this_directory_is_read(write: Write) -> None:
    write("[http]\nport = 1")
    loaded = load(environ={})
    assert (loaded.path, loaded.config.http.port) == (Path("config.toml"), 1)


def test_load_when_mqservice_config_names_a_file_then_it_goes_before_this_directory(
    write: Write, tmp_path: Path
) -> None:
    write("[http]\nport = 1")
    (tmp_path / "other.toml").write_text("[http]\nport = 2")
    loaded = load(environ={"MQSERVICE_CONFIG": "other.toml"})
    assert (loaded.path, loaded.config.http.port) == (Path("other.toml"), 2)


def test_load_when_variables_are_reserved_or_foreign_then_they_are_left_alone() -> None:
    environ = {"MQSERVICE_URL": "http://x", "MQSERVICE_TOKEN": "t", "MQSERVICE_CONFIG": "", "PATH": "/bin"}
    assert load(environ=environ).config == Config()


def test_load_when_the_environment_holds_numbers_then_they_fit_their_types() -> None:
    environ = {"MQSERVICE_QUEUE__LEASE_S": "2.5", "MQSERVICE_QUEUE__TIMEOUT_S": "7"}
    queue = load(environ=environ).config.queue
    assert (queue.lease_s, queue.timeout_s) == (2.5, 7.0)


def test_load_when_the_environment_holds_a_string_that_looks_like_a_number_then_it_stays_a_string() -> None:
    assert load(environ={"MQSERVICE_REDIS__DATA_DIR": "5"}).config.redis.data_dir == "5"


# Queues and channels


def test_queue_options_when_all_speak_then_the_file_beats_the_handler_beats_the_defaults(
    write: Write,
) -> None:
    path = write("[queue]\nattempts = 2\ncrashes = 2\nconcurrency = 2\n[queues.mails]\nattempts = 4")
    options = load(path, {}).config.queue_options("mails", attempts=3, crashes=3)
    assert (options.attempts, options.crashes, options.concurrency) == (4, 3, 2)
    assert (options.name, options.key) == ("mails", "mq:mails")


def test_queue_options_when_only_the_handler_names_a_key_then_it_is_used() -> None:
    assert Config().queue_options("prodcons", key="task:prodcons:queue").key == "task:prodcons:queue"


def test_queue_options_when_an_override_is_none_then_it_counts_as_not_said() -> None:
    assert Config().queue_options("mails", attempts=None).attempts == QueueConfig().attempts


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"atempts": 3}, ['"atempts"', '"mails"', "attempts"]),
        ({"attempts": 0}, ["queues.mails.attempts = 0", "handler", "from 1 to 1000"]),
        ({"delivery": "never"}, ['"never"', '"at-least-once", "at-most-once"']),
    ],
)
def test_queue_options_when_an_override_is_wrong_then_the_error_names_it(
    overrides: dict[str, object], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        Config().queue_options("mails", **overrides)
    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize("name", ["", "a b", "a/b", "é", "x" * 129, "a\n"])
def test_queue_options_when_the_name_is_none_then_it_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        Config().queue_options(name)


def test_channel_options_when_nothing_is_configured_then_the_key_is_the_name_and_nothing_is_kept() -> None:
    assert Config().channel_options("prices.*") == ChannelOptions("prices.*", "prices.*", 0, 3600.0)


def test_load_when_a_queue_table_is_empty_then_the_queue_is_still_declared(write: Write) -> None:
    config = load(write("[queues.mails]\n[channels.news]"), {}).config
    assert (list(config.queues), list(config.channels)) == (["mails"], ["news"])


def test_load_when_a_quoted_name_has_dots_then_it_is_one_name(write: Write) -> None:
    loaded = load(write('[queues."a.b"]\nattempts = 4'), {})
    assert loaded.config.queue_options("a.b").attempts == 4
    assert ("queues.a.b.attempts", 4, "file config.toml") in loaded.rows()


@pytest.mark.parametrize(
    ("variable", "queue"),
    [
        ("MQSERVICE_QUEUES__MAILS__ATTEMPTS", "Mails"),
        ("MQSERVICE_QUEUES__OTHER__ATTEMPTS", "other"),
        ("MQSERVICE_QUEUES__TWO__PARTS__ATTEMPTS", "two__parts"),
    ],
)
def test_load_when_a_variable_names_a_queue_then_case_does_not_matter(write: Write, variable: str, queue: str) -> None:
    loaded = load(write("[queues.Mails]\nattempts = 3"), {variable: "5"})
    assert loaded.config.queue_options(queue).attempts == 5
    assert loaded.origins[f"queues.{queue}.attempts"] == f"environment {variable}"


# Complaints


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[redis]\nulr = 'x'", 'unknown key "redis.ulr" in config.toml; did you mean "redis.url"?'),
        ("[rediss]\nurl = 'x'", 'unknown key "rediss" in config.toml; did you mean "redis"?'),
        ("port = 1", 'unknown key "port" in config.toml; did you mean "http.port"?'),
        ("[log]\nzzz = 1", 'unknown key "log.zzz" in config.toml'),
        (
            "[queues.mails]\natempts = 1",
            'unknown key "queues.mails.atempts" in config.toml; did you mean "queues.mails.attempts"?',
        ),
        (
            "[queues]\nattempts = 1",
            'unknown key "queues.attempts" in config.toml; did you mean "queue.attempts"?',
        ),
        (
            "[queues.a.b]\nattempts = 1",
            'unknown key "queues.a.b" in config.toml; a name with dots needs quotes: [queues."a.b"]',
        ),
        ("http = 5", "http (file config.toml): expected a table, [http]"),
        (
            "[http]\nport = 70000",
            "http.port = 70000 (file config.toml): expected a whole number from 0 to 65535",
        ),
        (
            "[http]\nport = true",
            "http.port = true (file config.toml): expected a whole number from 0 to 65535",
        ),
        (
            "[http]\nport = '5000'",
            'http.port = "5000" (file config.toml): expected a whole number from 0 to 65535',
        ),
        (
            "[queue]\nlease_s = nan",
            "queue.lease_s = NaN (file config.toml): expected a number from 1 to 3600",
        ),
        (
            "[queue]\nlease_s = inf",
            "queue.lease_s = Infinity (file config.toml): expected a number from 1 to 3600",
        ),
        (
            "[queue]\nlease_s = 0.5",
            "queue.lease_s = 0.5 (file config.toml): expected a number from 1 to 3600",
        ),
        ("[queue]\nbell_s = 11", "queue.bell_s = 11 (file config.toml): expected a number from 0.1 to 10"),
        ("[redis]\ndata_dir = 5", "redis.data_dir = 5 (file config.toml): expected a string"),
        ("[redis.pool]", "redis.pool = a table (file config.toml): expected a whole number from 1 to 1000"),
        ("[http]\nhost = ['a']", "http.host = a list (file config.toml): expected a host name or an address"),
        (
            "[http]\nhost = 2026-01-02",
            'http.host = "2026-01-02" (file config.toml): expected a host name or an address',
        ),
        (
            "[redis]\nembedded = 'yes'",
            'redis.embedded = "yes" (file config.toml): expected one of "always", "auto", "never"',
        ),
        (
            "[queues.a]\nkey = '{x}'",
            'queues.a.key = "{x}" (file config.toml): expected a Redis key of 1 to 512 characters, without braces',
        ),
        ("[queues.'a b']", "queue 'a b' is not a name: 1 to 128 of A-Z a-z 0-9 . _ : - (file config.toml)"),
    ],
)
def test_load_when_the_file_is_wrong_then_the_error_says_what_and_where(write: Write, text: str, expected: str) -> None:
    assert complaint(write(text)) == expected


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        (
            "MQSERVICE_HTTP__PORT",
            "many",
            'http.port = "many" (environment MQSERVICE_HTTP__PORT): expected a whole number from 0 to 65535',
        ),
        (
            "MQSERVICE_HTPP__PORT",
            "1",
            "unknown variable MQSERVICE_HTPP__PORT; did you mean MQSERVICE_HTTP__PORT?",
        ),
        (
            "MQSERVICE_HTTP_PORT",
            "1",
            "unknown variable MQSERVICE_HTTP_PORT; did you mean MQSERVICE_HTTP__PORT?",
        ),
        (
            "MQSERVICE_QUEUES__MAILS__ATEMPTS",
            "1",
            "unknown variable MQSERVICE_QUEUES__MAILS__ATEMPTS; did you mean MQSERVICE_QUEUES__MAILS__ATTEMPTS?",
        ),
        ("MQSERVICE_ZZZ", "1", "unknown variable MQSERVICE_ZZZ"),
        ("MQSERVICE_", "1", "unknown variable MQSERVICE_"),
        (
            "MQSERVICE_QUEUES__MAILS",
            "1",
            "unknown variable MQSERVICE_QUEUES__MAILS; expected MQSERVICE_QUEUES__<NAME>__<KEY>",
        ),
    ],
)
def test_load_when_a_variable_is_wrong_then_the_error_says_which(variable: str, value: str, expected: str) -> None:
    assert complaint(environ={variable: value}) == expected


def test_load_when_a_flag_is_out_of_range_then_the_error_names_the_flag() -> None:
    text = complaint(flags={"http.port": ("--port", -1)})
    assert text == "http.port = -1 (flag --port): expected a whole number from 0 to 65535"


def test_load_when_an_overridden_value_is_wrong_then_it_is_still_an_error(write: Write) -> None:
    assert "http.port = -1" in complaint(write("[http]\nport = -1"), {"MQSERVICE_HTTP__PORT": "1"})


def test_load_when_a_named_file_is_missing_then_the_error_names_it() -> None:
    assert complaint(Path("gone.toml")) == "cannot read gone.toml: No such file or directory"
    assert complaint(environ={"MQSERVICE_CONFIG": "gone.toml"}).startswith("cannot read gone.toml")


def test_load_when_the_file_is_a_directory_then_the_error_says_so(tmp_path: Path) -> None:
    assert complaint(tmp_path) == f"cannot read {tmp_path}: Is a directory"


@pytest.mark.parametrize(
    ("raw", "line"),
    [(b"[http]\nport : 5000", 2), (b"[http]\nport =", 2), (b"a = 1\na = 2\n", 2), (b"\n\n# \xff", 3)],
)
def test_load_when_the_file_is_not_toml_then_the_error_gives_the_line(tmp_path: Path, raw: bytes, line: int) -> None:
    (tmp_path / "config.toml").write_bytes(raw)
    text = complaint()
    assert text.startswith("config.toml is not TOML: ")
    assert f"at line {line}" in text


# The URL of Redis


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/5",
        "redis://localhost",
        "rediss://me:secret@far.example:6380/0?ssl_cert_reqs=none",
        "redis://[::1]:6379/5",
        "unix:///run/redis.sock?db=5",
        "unix://me:secret@/run/redis.sock",
    ],
)
def test_load_when_the_url_is_sound_then_it_is_kept_as_it_is(url: str) -> None:
    assert load(environ={"MQSERVICE_REDIS__URL": url}).config.redis.url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "redis://localhost:99999",
        "redis://localhost:x",
        "redis://localhost/five",
        "unix://run/redis.sock",
        "unix://",
    ],
)
def test_load_when_the_url_is_unfit_then_it_is_refused(url: str) -> None:
    assert "expected a redis://, rediss:// or unix:// URL" in complaint(environ={"MQSERVICE_REDIS__URL": url})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/5", "redis://localhost:6379/5"),
        ("redis://:secret@h:1/5", "redis://:***@h:1/5"),
        ("redis://me:secret@h", "redis://me:***@h"),
        ("redis://me@h:1", "redis://me@h:1"),
        ("redis://me:sec/r@et@h:1", "redis://me:***@h:1"),
        ("redis:me:secret@h", "redis:***@h"),
        ("me:secret@h", "me:***@h"),
        ("redis://h?password=secret&db=5", "redis://h?password=***&db=5"),
        ("unix://me:secret@/run/x.sock", "unix://me:***@/run/x.sock"),
    ],
)
def test_redacted_when_a_url_has_a_password_then_only_that_is_hidden(url: str, shown: str) -> None:
    assert redacted(url) == shown


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=3),
    st.sampled_from(["redis://u:", "redis://:", "u:"]),
)
def test_redacted_when_the_password_is_anything_then_it_never_shows(password: str, before: str) -> None:
    # Bracketed, so that no password is by chance a part of what surrounds it.
    assert f"<{password}>" not in redacted(f"{before}<{password}>@host:6379/5")


def test_load_when_a_url_with_a_password_is_refused_then_the_error_hides_it() -> None:
    text = complaint(environ={"MQSERVICE_REDIS__URL": "redi://me:secret@h"})
    assert "secret" not in text
    assert 'redis.url = "redi://me:***@h"' in text


# config show


def show(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(config_command, ["show", *arguments], env={"MQSERVICE_HTTP__PORT": "8080"})
    return result.exit_code, result.stdout, result.stderr


def test_config_show_when_called_then_each_value_has_its_origin_and_passwords_are_hidden(
    write: Write,
) -> None:
    write('[redis]\nurl = "redis://:secret@h"')
    code, out, _ = show()
    assert code == 0
    assert re.search(r"redis\.url +.? +\"redis://:\*\*\*@h\" +.? +file config\.toml", out.replace("│", " "))
    assert re.search(r"http\.port +8080 +environment MQSERVICE_HTTP__PORT", out.replace("│", " "))
    assert "secret" not in out


def test_config_show_when_asked_for_json_then_it_holds_every_key() -> None:
    code, out, _ = show("--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["path"] is None
    assert answer["values"]["http.port"] == {"value": 8080, "from": "environment MQSERVICE_HTTP__PORT"}
    assert set(answer["values"]) == set(load(environ={}).origins)


def test_config_show_when_a_key_is_unknown_then_it_exits_2_and_names_the_nearest(write: Write) -> None:
    write("[redis]\nulr = 'x'")
    code, out, err = show()
    assert (code, out) == (2, "")
    assert 'did you mean "redis.url"?' in err


def test_loaded_when_listed_then_sections_stand_in_the_order_of_the_file() -> None:
    loaded = load(SHIPPED, environ={})
    sections = list(dict.fromkeys(key.partition(".")[0] for key, _, _ in loaded.rows()))
    assert sections == ["redis", "http", "auth", "service", "queue", "log", "queues", "channels"]
