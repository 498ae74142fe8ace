"""The URL as the Redis client takes it, with the password and the TLS files that the configuration has apart."""

import ssl
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from mqservice.config.sections import RedisConfig
from mqservice.errors import ConfigError

_TLS_FILES = {"ca_file": "ssl_ca_certs", "cert_file": "ssl_certfile", "key_file": "ssl_keyfile"}
"""Our key → the client's parameter."""


def full_url(config: RedisConfig) -> str:
    """Return `url` with all that belongs to it. It may hold a password: show it only `redacted`.

    Reads the files, so that one that is missing or no certificate is told at start. Raises ConfigError.
    """
    url = _with_password(config) if config.password_file else config.url
    given = {key: getattr(config, key) for key in _TLS_FILES if getattr(config, key)}
    if not given:
        return url
    if urlsplit(url).scheme != "rediss":
        raise ConfigError(f"redis.{next(iter(given))} is for TLS, which needs a rediss:// url in redis.url")
    _check_files(config)
    parameters = "&".join(f"{_TLS_FILES[key]}={quote(path)}" for key, path in given.items())
    return f"{url}{'&' if '?' in url else '?'}{parameters}"


def _with_password(config: RedisConfig) -> str:
    url = urlsplit(config.url)
    if url.password:
        raise ConfigError("redis.password_file: redis.url has a password as well; take it out there")
    try:
        password = Path(config.password_file).read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable("password_file", config.password_file, error) from None
    if not password:
        raise ConfigError(f'redis.password_file = "{config.password_file}": it is empty')
    user, _, host = url.netloc.rpartition("@")
    return urlunsplit(url._replace(netloc=f"{user.removesuffix(':')}:{quote(password, safe='')}@{host}"))


def _check_files(config: RedisConfig) -> None:
    if config.key_file and not config.cert_file:
        raise ConfigError("redis.key_file: the certificate that belongs to it is missing, redis.cert_file")
    if config.ca_file:
        try:
            ssl.create_default_context(cafile=config.ca_file)
        except OSError as error:
            raise _unreadable("ca_file", config.ca_file, error) from None
    if config.cert_file:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
                config.cert_file,
                config.key_file or None,
                password="",  # or OpenSSL would ask for it on the terminal
            )
        except OSError as error:
            raise _unreadable("cert_file", f"{config.cert_file} {config.key_file}".rstrip(), error) from None


def _unreadable(key: str, path: str, error: Exception) -> ConfigError:
    reason = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
    return ConfigError(f'redis.{key} = "{path}": {reason or "not what it should be"} ({type(error).__name__})')
