"""Which keys there are: a frozen struct per section of config.toml, with defaults, ranges and meaning."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict

from mqservice import keys
from mqservice.config.checks import checked, is_redis_url, redacted
from mqservice.errors import ConfigError
from mqservice.schedules import RULES, Misfire, Overlap, Schedule

RedisUrl = Annotated[
    str,
    Meta(
        description='a redis://, rediss:// or unix:// URL such as "redis://localhost:6379/5"',
        extra={"accepts": is_redis_url},
    ),
]
# `{K}:…` lands in the Cluster slot of `K` only when K itself has no braces.
QueueKey = Annotated[
    str, Meta(pattern=r"\A[^{}]{1,512}\Z", description="a Redis key of 1 to 512 characters, without braces")
]
ChannelKey = Annotated[str, Meta(min_length=1, max_length=512, description="a Redis channel of 1 to 512 characters")]
Delivery = Literal["at-least-once", "at-most-once"]
Budget = Annotated[int, Meta(ge=1, le=1000)]
Concurrency = Annotated[int, Meta(ge=1, le=10_000)]
LeaseSeconds = Annotated[float, Meta(ge=1, le=3600)]
TimeoutSeconds = Annotated[float, Meta(ge=0.001, le=604_800)]
RetentionSeconds = Annotated[float, Meta(ge=0.001, le=31_536_000)]
History = Annotated[int, Meta(ge=0, le=1_000_000)]
MaxLength = Annotated[int, Meta(ge=0, le=1_000_000_000)]
RetrySeconds = Annotated[float, Meta(ge=0, le=31_536_000)]
BellSeconds = Annotated[float, Meta(ge=0.1, le=10)]
HostName = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?\Z",
        description="a host name, without scheme and port",
    ),
]
Sha256 = Annotated[
    str,
    Meta(
        pattern=r"\A[0-9A-Fa-f]{64}\Z",
        description="the SHA-256 of the secret, 64 hex digits; `mqservice token NAME` prints it",
    ),
]
Scope = Literal["send", "read", "work", "admin"]
Scopes = Annotated[
    tuple[Scope, ...],
    Meta(min_length=1, description='a list of "send", "read", "work", "admin", not empty'),
]
TokenQueues = Annotated[
    tuple[Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._:-]{1,128}\Z")], ...],
    Meta(min_length=1, description="a list of names of queues, not empty"),
]


class RedisConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where Redis or Valkey is, and when we start our own."""

    url: RedisUrl = "redis://localhost:6379/5"
    # "auto": start our own server when nothing answers at a loopback `url`.
    embedded: Literal["auto", "always", "never"] = "auto"
    # Where our own server keeps its data; empty: ~/.local/state/mqservice.
    data_dir: str = ""
    # After this long a call to Redis has failed and its connection is dropped.
    deadline_s: Annotated[float, Meta(ge=0.05, le=300)] = 5.0
    # Connections for commands, per process; further calls wait for a free one.
    pool: Annotated[int, Meta(ge=1, le=1000)] = 16
    # File with the password, so that `url` needs none; a line feed at its end does not count.
    password_file: str = ""
    # PEM file with the CAs that may vouch for a rediss:// server; empty: those of the system.
    ca_file: str = ""
    # PEM file with our certificate, where the server asks for one, and the file with its key when that is elsewhere.
    cert_file: str = ""
    key_file: str = ""

    def __repr__(self) -> str:
        return f"RedisConfig({', '.join(f'{key}={value!r}' for key, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields without the password, for tracebacks that show local variables."""
        return [(key, redacted(value) if key == "url" else value) for key, value in asdict(self).items()]


class HttpConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP listener and what it bears from its clients."""

    # A host name or address to listen on; all interfaces are 0.0.0.0 or ::.
    host: Annotated[str, Meta(min_length=1, description="a host name or an address")] = "127.0.0.1"
    # 0: any free port.
    port: Annotated[int, Meta(ge=0, le=65_535)] = 5000
    # A client connection that idles, or takes longer over the headers of a request, is closed.
    keepalive_s: Annotated[float, Meta(ge=0.1, le=3600)] = 15.0
    # Clients connected at the same time; beyond it the one that has idled longest is cut off for a new one.
    connections: Annotated[int, Meta(ge=10, le=1_000_000)] = 10_000
    # Bytes of a request body; a larger one is refused. Redis itself ends at 512 MiB.
    body_limit: Annotated[int, Meta(ge=1, le=536_870_912)] = 1_048_576
    # A request body that takes longer than this to arrive is refused.
    body_deadline_s: Annotated[float, Meta(ge=0.1, le=3600)] = 30.0
    # Names by which clients may call us, besides `host`, localhost and any address; others are refused.
    hosts: Annotated[tuple[HostName, ...], Meta(description="a list of host names, without scheme and port")] = ()
    # Requests a second of each token, and of each address that shows none; per process. 0: no limit.
    rate_per_s: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    # As many may come at once before the rate counts.
    rate_burst: Annotated[int, Meta(ge=1, le=1_000_000)] = 200


class Token(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may do what, one of `[[auth.tokens]]`. The secret itself is nowhere but with its owner."""

    sha256: Sha256
    # send: send and publish; read: look; work: cancel and replay one message; admin: whole queues and schedules.
    # None implies another.
    scopes: Scopes
    # Only these queues, and nothing that is no queue's; unset: everything.
    queues: TokenQueues | UnsetType = UNSET


class AuthConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may call the HTTP API. Without any token everybody may, from this machine."""

    # A TOML file with further `[[auth.tokens]]`; read at start.
    token_file: str = ""
    # [[auth.tokens]] of the file, by their names.
    tokens: dict[str, Token] = {}


class ServiceConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The process as a whole."""

    # The application to serve, as module:attribute.
    app: Annotated[
        str,
        Meta(pattern=r"\A[\w.]+:[\w.]+\Z", description='module:attribute, such as "mqservice.demo:service"'),
    ] = "mqservice.demo:service"
    # How long running handlers may go on after TERM or INT before they are released.
    drain_s: Annotated[float, Meta(ge=0, le=3600)] = 25.0


class QueueConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Defaults of every queue; `[queues.<name>]` and handlers override them."""

    # "at-most-once" is a plain BLPOP: no record, no retry, nothing after a crash.
    delivery: Delivery = "at-least-once"
    # Messages of one queue in work at the same time, per process.
    concurrency: Concurrency = 100
    # Runs until a failing message is dead.
    attempts: Budget = 10
    # The wait after the first failed run; it doubles with each further one. Half of it is jitter.
    retry_s: RetrySeconds = 2.0
    # The longest wait between two runs.
    retry_max_s: RetrySeconds = 3600.0
    # Expired leases until a message that kills its process is dead.
    crashes: Budget = 3
    # The right to work on a message, renewed while the handler runs.
    lease_s: LeaseSeconds = 15.0
    # A handler that runs longer is cancelled; costs an attempt.
    timeout_s: TimeoutSeconds = 300.0
    # How long a result can be read.
    result_ttl_s: RetentionSeconds = 86_400.0
    # How long a dead or cancelled message is kept; of the dead at most 100,000 per queue.
    failure_ttl_s: RetentionSeconds = 2_592_000.0
    # Ready messages at which new ones are refused (429); 0: as many as Redis holds.
    max_length: MaxLength = 0
    # How long one BLPOP of the bell waits in Redis: the longest that a foreign push goes unnoticed.
    bell_s: BellSeconds = 1.0


class QueueOverrides(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One queue's own settings, `[queues.<name>]`: those of `QueueConfig`, where set, and its key."""

    key: QueueKey | UnsetType = UNSET
    delivery: Delivery | UnsetType = UNSET
    concurrency: Concurrency | UnsetType = UNSET
    attempts: Budget | UnsetType = UNSET
    retry_s: RetrySeconds | UnsetType = UNSET
    retry_max_s: RetrySeconds | UnsetType = UNSET
    crashes: Budget | UnsetType = UNSET
    lease_s: LeaseSeconds | UnsetType = UNSET
    timeout_s: TimeoutSeconds | UnsetType = UNSET
    result_ttl_s: RetentionSeconds | UnsetType = UNSET
    failure_ttl_s: RetentionSeconds | UnsetType = UNSET
    max_length: MaxLength | UnsetType = UNSET
    bell_s: BellSeconds | UnsetType = UNSET


class QueueOptions(QueueConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that holds for one queue, resolved by `Config.queue_options`; `key` is its Redis list."""

    name: str
    key: QueueKey


class ChannelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One channel's own settings, `[channels.<name>]`."""

    # The Redis channel, where it is not called as ours.
    key: ChannelKey | UnsetType = UNSET
    # Messages kept for clients that come back; 0: none.
    history: History = 0
    # How long they are kept.
    history_s: RetentionSeconds = 3600.0


class ChannelOptions(Struct, frozen=True):
    """All that holds for one channel; `key` is its Redis channel."""

    name: str
    key: str
    history: int = 0
    history_s: float = 3600.0


class LogConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes to stderr, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    # "auto": console on a terminal, JSON lines elsewhere.
    format: Literal["auto", "console", "json"] = "auto"


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set. `Config()` is all defaults; `load` is the usual way to one.

    Constructing a section by hand checks nothing: ranges are checked by `load` and `queue_options`.
    """

    redis: RedisConfig = RedisConfig()
    http: HttpConfig = HttpConfig()
    auth: AuthConfig = AuthConfig()
    service: ServiceConfig = ServiceConfig()
    queue: QueueConfig = QueueConfig()
    log: LogConfig = LogConfig()
    queues: dict[str, QueueOverrides] = {}
    channels: dict[str, ChannelConfig] = {}
    # [[schedules]] of the file, by their names.
    schedules: dict[str, Schedule] = {}

    def queue_options(self, name: str, **handler_overrides: object) -> QueueOptions:
        """Resolve one queue: `[queues.<name>]` over what its handler says over `[queue]`; key `mq:<name>`.

        An override of None counts as not said. Raises InvalidName, or ConfigError for an override that is
        unknown or unfit.
        """
        default_key = keys.ready(keys.valid_name(name))
        configured = self.queues.get(name, QueueOverrides())
        merged = {
            "key": default_key,
            **msgspec.structs.asdict(self.queue),
            **_checked_overrides(name, handler_overrides),
            **{key: value for key, value in msgspec.structs.asdict(configured).items() if value is not UNSET},
            "name": name,
        }
        return msgspec.convert(merged, QueueOptions)

    def channel_options(self, name: str, key: str | None = None) -> ChannelOptions:
        """Resolve one channel; its Redis channel is the configured key, else `key`, else the name itself."""
        its = self.channels.get(name, ChannelConfig())
        return ChannelOptions(name, key or name if its.key is UNSET else its.key, its.history, its.history_s)


def _types(section: type[Struct]) -> dict[str, object]:
    return {field.name: field.type for field in msgspec.structs.fields(section)}


def _ruled(kind: object, key: str) -> object:
    rule = RULES[key]
    return Annotated[kind, Meta(description=rule.expected, extra={"accepts": rule.accepts})]


_QUEUE_TYPES: Final[dict[str, object]] = {"key": QueueKey, **_types(QueueConfig)}

KEYS: Final[Mapping[str, Mapping[str, object]]] = {
    "redis": _types(RedisConfig),
    "http": _types(HttpConfig),
    "auth": {"token_file": str},
    "auth.tokens": {"sha256": Sha256, "scopes": Scopes, "queues": TokenQueues},
    "service": _types(ServiceConfig),
    "queue": _types(QueueConfig),
    "log": _types(LogConfig),
    "queues": _QUEUE_TYPES,
    "channels": {**_types(ChannelConfig), "key": ChannelKey},
    "schedules": {
        "queue": _ruled(str, "queue"),
        "body": Any,
        "cron": _ruled(str, "cron"),
        "every": _ruled(float | str, "every"),
        "tz": _ruled(str, "tz"),
        "misfire": Misfire,
        "overlap": Overlap,
    },
}
"""Section → key → annotated type. For the sections in `NAMED`, the keys of each table below them."""

NAMED: Final = frozenset({"queues", "channels", "schedules", "auth.tokens"})
"""Sections that hold a table per name: `[queues.<name>]`, or `[[schedules]]` with a `name` in each."""

LISTED: Final = frozenset({"schedules", "auth.tokens"})
"""The sections in `NAMED` whose tables are an array in the file."""


def _checked_overrides(queue: str, overrides: Mapping[str, object]) -> dict[str, object]:
    said = {key: value for key, value in overrides.items() if value is not None}
    for key in said.keys() - _QUEUE_TYPES.keys():
        raise ConfigError(
            f'unknown option "{key}" of the handler of queue "{queue}"; there are: {", ".join(_QUEUE_TYPES)}'
        )
    return {key: checked(f"queues.{queue}.{key}", value, _QUEUE_TYPES[key], "handler") for key, value in said.items()}
