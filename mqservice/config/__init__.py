"""Configuration: what can be set, and what it is set to. Called by everything above; needs no Redis.

`sections` says which keys there are, `checks` judges one value, `loading` merges defaults, file, environment
and flags. Nothing outside this package may read `config.toml` or `MQSERVICE_<SECTION>__<KEY>`.
"""

from mqservice.config.checks import is_loopback, redacted
from mqservice.config.loading import Loaded, load
from mqservice.config.redis_url import full_url
from mqservice.config.sections import (
    AuthConfig,
    ChannelConfig,
    ChannelOptions,
    Config,
    HttpConfig,
    LogConfig,
    QueueConfig,
    QueueOptions,
    QueueOverrides,
    RedisConfig,
    Scope,
    ServiceConfig,
    Token,
)
from mqservice.config.tokens import all_tokens

__all__ = [
    "AuthConfig",
    "ChannelConfig",
    "ChannelOptions",
    "Config",
    "HttpConfig",
    "Loaded",
    "LogConfig",
    "QueueConfig",
    "QueueOptions",
    "QueueOverrides",
    "RedisConfig",
    "Scope",
    "ServiceConfig",
    "Token",
    "all_tokens",
    "full_url",
    "is_loopback",
    "load",
    "redacted",
]
