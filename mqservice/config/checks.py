"""Judges one configuration value and words the complaint. Knows no section, reads no file."""

import ipaddress
import json
import re
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import msgspec
from msgspec.inspect import FloatType, IntType, LiteralType, Metadata, VarTupleType, type_info

from mqservice.errors import ConfigError

# Greedy to the last @, since a password may hold an unescaped @ or /: rather hide too much than too little.
# The ?+ keeps "redis:" from being taken for a user name when there is no password.
_PASSWORD = re.compile(r"^((?:[^:/@]*://)?+[^:/@]*):.*@", re.DOTALL)
_PASSWORD_PARAMETER = re.compile(r"([?&]\w*password=)[^&#]*", re.IGNORECASE)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_redis_url(text: str) -> bool:
    """Whether the Redis client can make sense of `text`: scheme, port, database number, socket path."""
    try:
        url = urlsplit(text)
        url.port  # noqa: B018  # raises when it is no port
    except ValueError:
        return False
    if url.scheme == "unix":
        return not url.hostname and len(url.path) > 1
    return url.scheme in {"redis", "rediss"} and re.fullmatch(r"/?[0-9]*", url.path) is not None


def redacted(url: str) -> str:
    """Hide the password of a URL, for terminals and logs; also of one that is malformed.

    `redis://me:secret@host/5` becomes `redis://me:***@host/5`; so do `password=` parameters.
    """
    return _PASSWORD_PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))


def checked(key: str, value: object, kind: object, origin: str, *, from_text: bool = False) -> object:
    """Return `value` as the annotated type `kind`, or raise a ConfigError that says all one needs to mend it.

    It names key, value, `origin` and what is expected. `from_text`: the value came as a string (environment,
    flag) and is read as a number where one is expected, and as a list where its parts stand between commas.
    """
    info = type_info(kind)
    if from_text and isinstance(value, str) and _is_list(info):
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        result = msgspec.convert(value, cast("type[object]", kind), strict=not from_text)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the latter: bytes of the environment that are no text
        pass
    else:
        if _accepts(info)(result):
            return result
    raise ConfigError(f"{key} = {_shown(key, value)} ({origin}): expected {_expected(info)}")


def _is_list(info: object) -> bool:
    return isinstance(info.type if isinstance(info, Metadata) else info, VarTupleType)


def _accepts(info: object) -> Callable[[object], bool]:
    """The predicate that the type carries in `Meta(extra={"accepts": …})`, or one that accepts all."""
    extra = (info.extra if isinstance(info, Metadata) else None) or {}
    return cast("Callable[[object], bool]", extra.get("accepts", lambda _: True))


def _expected(info: object) -> str:
    """Say in words what a type admits; a `Meta(description=…)` is taken as it stands."""
    match info:
        case Metadata(extra_json_schema={"description": str(words)}):
            return words
        case LiteralType(values=values):
            return "one of " + ", ".join(json.dumps(each) for each in values)
        case IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case FloatType(ge=low, le=high):
            return f"a number from {low:.15g} to {high:.15g}"
        case _:
            return "a string"


def _shown(key: str, value: object) -> str:
    """The value as it stands in the file, shortened, without its password."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(shown(key, value))
    return json.dumps(text if len(text) <= 100 else text[:99] + "…", ensure_ascii=False)


def shown(key: str, value: object) -> object:
    """Return a key's value as terminals and logs may have it: without a password, or what may be one by mistake."""
    if key.endswith(".url"):
        return redacted(str(value))
    return "***" if key.endswith(".sha256") else value
