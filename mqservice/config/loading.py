"""Merges defaults, config.toml, environment and flags into one `Config`; remembers where each value is from.

Called once per process by the command line, or by `Service`. The only reader of file and environment.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import msgspec

from mqservice.config.checks import checked, shown
from mqservice.config.sections import KEYS, LISTED, NAMED, Config, Token
from mqservice.errors import ConfigError, InvalidName, InvalidSchedule
from mqservice.keys import valid_name
from mqservice.schedules import Schedule, every_s, valid_schedule

_PREFIX: Final = "MQSERVICE_"
# Not configuration keys: the file to read, and how the client commands reach a running service.
_RESERVED: Final = frozenset({"MQSERVICE_CONFIG", "MQSERVICE_URL", "MQSERVICE_TOKEN"})

Key = tuple[str, ...]
"""`("http", "port")` or `("queues", name, "key")`, since a name may hold dots itself; so may `auth.tokens`."""


class Loaded(msgspec.Struct, frozen=True):
    """A checked configuration and its sources.

    `origins` has every dotted key: `default`, `file config.toml`, `environment MQSERVICE_HTTP__PORT` or
    `flag --port`. `path` is the file that was read, None when there was none.
    """

    config: Config
    origins: dict[str, str]
    path: Path | None

    def rows(self) -> list[tuple[str, object, str]]:
        """List (dotted key, value, origin), passwords hidden: for people, not for use."""
        return [(dotted, _value(self.config, dotted), origin) for dotted, origin in self.origins.items()]


class _Setting(NamedTuple):
    key: Key
    value: object
    origin: str
    from_text: bool = False


def load(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, tuple[str, object]] | None = None,
) -> Loaded:
    """Read the configuration; later wins: defaults, file, environment, flags.

    Every value is checked, also one that is overridden. `path` None: `MQSERVICE_CONFIG`, else ./config.toml
    if there is one, else no file. `flags`: dotted key → (flag, value), where a value of None means that the
    flag was not given. Raises ConfigError.
    """
    path = path or _usual_path(environ)
    document = _by_name(_read(path), str(path)) if path else {}
    merged: dict[Key, _Setting] = {setting.key: setting for setting in _defaults()}
    for setting in chain(
        _from_file(document, str(path)), _from_environment(environ, document), _from_flags(flags or {})
    ):
        merged[setting.key] = setting._replace(value=_checked_value(setting))
    origins = {".".join(key): setting.origin for key, setting in merged.items()}
    return Loaded(_config(merged.values(), document), origins, path)


def _usual_path(environ: Mapping[str, str]) -> Path | None:
    if named := environ.get("MQSERVICE_CONFIG"):
        return Path(named)
    usual = Path("config.toml")
    return usual if usual.exists() else None


def _read(path: Path) -> dict[str, object]:
    try:
        raw = path.read_bytes()
        return tomllib.loads(raw.decode())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path} is not TOML: not UTF-8 (at line {line})") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is not TOML: nested too deeply") from error
    except tomllib.TOMLDecodeError as error:
        # At the end of the file tomllib says "(at end of document)".
        text = str(error).replace("end of document", f"line {len(raw.splitlines())}, the end")
        raise ConfigError(f"{path} is not TOML: {text}") from error


def _by_name(document: dict[str, object], path: str) -> dict[str, object]:
    """Turn the arrays of tables into tables by name: `[[schedules]]` into `schedules.<name>`."""
    auth = document.get("auth")
    if isinstance(auth, dict) and "tokens" in auth:
        rest = {key: value for key, value in auth.items() if key != "tokens"}
        document = {**document, "auth": rest, "auth.tokens": auth["tokens"]}
    return {
        section: _tables_by_name(section, tables, f"file {path}") if section in LISTED else tables
        for section, tables in document.items()
    }


def _tables_by_name(section: str, tables: object, origin: str) -> dict[str, object]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{section} ({origin}): expected an array of tables, [[{section}]]")
    named: dict[str, object] = {}
    for number, table in enumerate(tables):
        name = table.get("name")
        if not isinstance(name, str):
            raise ConfigError(f"{section}[{number}].name ({origin}): every [[{section}]] needs a name, a string")
        if name in named:
            raise ConfigError(f'{section}[{number}].name = "{name}" ({origin}): this name stands there twice')
        # TOML has dates, JSON has not: they become text.
        named[name] = {key: msgspec.to_builtins(value) for key, value in table.items() if key != "name"}
    return named


def _defaults() -> Iterator[_Setting]:
    for section, keys in msgspec.to_builtins(Config()).items():
        if section not in NAMED:
            for key in KEYS[section]:
                yield _Setting((section, key), keys[key], "default")


def _from_file(document: Mapping[str, object], path: str) -> Iterator[_Setting]:
    origin = f"file {path}"
    for section, table in document.items():
        if section not in KEYS:
            raise _unknown_key((section,), origin)
        if not isinstance(table, dict):
            raise ConfigError(f"{section} ({origin}): expected a table, [{section}]")
        if section not in NAMED:
            yield from (_Setting((section, key), value, origin) for key, value in table.items())
            continue
        for name, entries in table.items():
            if not isinstance(entries, dict):
                raise _unknown_key((section, name), origin)
            _check_name((section, name), origin)
            yield from (_Setting((section, name, key), value, origin) for key, value in entries.items())


def _from_environment(environ: Mapping[str, str], document: Mapping[str, object]) -> Iterator[_Setting]:
    for variable in sorted(environ):
        if variable.startswith(_PREFIX) and variable not in _RESERVED:
            key = _variable_key(variable, document)
            yield _Setting(key, environ[variable], f"environment {variable}", from_text=True)


def _from_flags(flags: Mapping[str, tuple[str, object]]) -> Iterator[_Setting]:
    for dotted, (flag, value) in flags.items():
        if value is not None:
            yield _Setting(_split(dotted), value, f"flag {flag}", from_text=True)


def _variable_key(variable: str, document: Mapping[str, object]) -> Key:
    """`MQSERVICE_QUEUES__MAILS__KEY` → `("queues", "Mails", "key")` when the file has a queue `Mails`."""
    section, _, rest = variable.removeprefix(_PREFIX).lower().partition("__")
    if section not in NAMED or "__" not in rest:
        return (section, rest) if rest else (section,)
    name, key = rest.rsplit("__", 1)
    table = document.get(section)
    configured = table if isinstance(table, dict) else {}
    spelled = name if name in configured else next((each for each in configured if each.lower() == name), name)
    return (section, spelled, key)


def _split(dotted: str) -> Key:
    section = next((named for named in NAMED if dotted.startswith(f"{named}.")), "")
    name, _, key = dotted.removeprefix(f"{section}.").rpartition(".")
    return (section, name, key) if section and name else tuple(dotted.split(".", 1))


def _checked_value(setting: _Setting) -> object:
    key = setting.key
    if key[-1] not in KEYS.get(key[0], ()) or len(key) != _depth(key[0]):
        raise _unknown_key(key, setting.origin, is_table=isinstance(setting.value, dict))
    _check_name(key, setting.origin)
    kind = KEYS[key[0]][key[-1]]
    return checked(".".join(key), setting.value, kind, setting.origin, from_text=setting.from_text)


def _depth(section: str) -> int:
    return 3 if section in NAMED else 2


def _check_name(key: Key, origin: str) -> None:
    if key[0] in NAMED:
        try:
            valid_name(key[1], key[0].removesuffix("s"))
        except InvalidName as error:
            raise ConfigError(f"{error} ({origin})") from None


def _unknown_key(key: Key, origin: str, *, is_table: bool = False) -> ConfigError:
    source, _, where = origin.partition(" ")
    if source == "environment":
        return ConfigError(f"unknown variable {where}{_variable_hint(key)}")
    nearest = _nearest(".".join(key), [".".join(each) for each in _known_keys(key)])
    hint = f'; did you mean "{nearest}"?' if nearest else ""
    if is_table and key[0] in NAMED:
        hint = f'; a name with dots needs quotes: [{key[0]}."{".".join(key[1:])}"]'
    return ConfigError(f'unknown key "{".".join(key)}" in {where}{hint}')


def _variable_hint(key: Key) -> str:
    if key[0] in NAMED and len(key) < 3:
        return f"; expected {_PREFIX}{key[0].upper()}__<NAME>__<KEY>"
    nearest = _nearest("__".join(key), ["__".join(each) for each in _known_keys(key)])
    return f"; did you mean {_PREFIX}{nearest.upper()}?" if nearest else ""


def _nearest(text: str, known: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(text, known, n=1)), None)


def _known_keys(like: Key) -> Iterator[Key]:
    """All keys that `like` could have meant: of a named section, those below the same name."""
    for section, keys in KEYS.items():
        if len(like) == 1:
            yield (section,)
        if section not in NAMED:
            yield from ((section, key) for key in keys)
        elif len(like) > 2:
            yield from ((section, like[1], key) for key in keys)


def _config(settings: Iterable[_Setting], document: Mapping[str, object]) -> Config:
    """Build the structs; a table of the file without a key in it still declares its queue or channel."""
    tree: dict[str, dict[str, object]] = {section: {} for section in KEYS}
    for section in NAMED & document.keys():
        tree[section] = {name: {} for name in cast("dict[str, object]", document[section])}
    for (section, *names, key), value, *_ in settings:
        table = tree[section]
        for name in names:
            table = cast("dict[str, object]", table.setdefault(name, {}))
        table[key] = value
    schedules = {name: _schedule(name, cast("dict[str, Any]", table)) for name, table in tree["schedules"].items()}
    tokens = {name: _token(name, cast("dict[str, Any]", table)) for name, table in tree.pop("auth.tokens").items()}
    return msgspec.convert({**tree, "schedules": schedules, "auth": {**tree["auth"], "tokens": tokens}}, Config)


def _schedule(name: str, table: Mapping[str, Any]) -> Schedule:
    """Build a schedule from values that are sound, each by itself."""
    if "queue" not in table:
        raise ConfigError(f"schedules.{name}.queue: a schedule needs a queue")
    try:
        return valid_schedule(Schedule(**{**table, "name": name, "every": every_s(table.get("every", 0))}))
    except InvalidSchedule as error:
        raise ConfigError(f"schedules.{name}.{error}") from None


def _token(name: str, table: Mapping[str, Any]) -> Token:
    """Build a token from values that are sound, each by itself."""
    for key in ("sha256", "scopes"):
        if key not in table:
            raise ConfigError(f"auth.tokens.{name}.{key}: a token needs its {key}; `mqservice token {name}` prints all")
    return Token(**table)


def _value(config: Config, dotted: str) -> object:
    """One value of `config` by its dotted key, without its password."""
    section, *names = _split(dotted)
    found: Any = reduce(getattr, section.split("."), config)
    for name in names:
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    return shown(dotted, found)
