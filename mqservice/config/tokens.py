"""All tokens that are configured: those of config.toml and those of the token file. Called at start."""

from collections.abc import Mapping
from pathlib import Path

from mqservice.config.loading import load
from mqservice.config.sections import AuthConfig, Token
from mqservice.errors import ConfigError


def all_tokens(auth: AuthConfig) -> Mapping[str, Token]:
    """Return the tokens by name; none: everybody on this machine may do everything. Raises ConfigError."""
    tokens = dict(auth.tokens)
    if auth.token_file:
        for name, token in _of_file(Path(auth.token_file)).items():
            if name in tokens:
                raise ConfigError(f'auth.token_file = "{auth.token_file}": config.toml has a token "{name}" as well')
            tokens[name] = token
    owners: dict[str, str] = {}
    for name, token in tokens.items():
        other = owners.setdefault(token.sha256.lower(), name)
        if other != name:
            raise ConfigError(f"auth.tokens.{name}.sha256: token {other} has the same secret; each needs its own")
    return tokens


def _of_file(path: Path) -> Mapping[str, Token]:
    loaded = load(path, environ={})
    others = [key for key, origin in loaded.origins.items() if origin != "default" and key[:12] != "auth.tokens."]
    if others:
        raise ConfigError(f'auth.token_file = "{path}": expected [[auth.tokens]] alone, found {others[0]}')
    if not loaded.config.auth.tokens:
        raise ConfigError(f'auth.token_file = "{path}": there is no [[auth.tokens]] in it')
    return loaded.config.auth.tokens
