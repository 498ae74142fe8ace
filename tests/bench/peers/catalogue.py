"""The peers: what is installed for each, which driver runs it, what it guarantees; the versions are the tried ones."""

from dataclasses import dataclass, field

LOOP = ("uvloop==0.23.0", "hiredis==3.5.0")


@dataclass(frozen=True)
class Peer:
    """One row of the table."""

    name: str
    driver: str
    """File in `drivers/`."""
    requires: tuple[str, ...]
    """What its environment holds: pip's or npm's requirements; empty: our own environment."""
    guarantee: str
    """What becomes of a message whose worker dies."""
    drained: int = 0
    """Messages of a drain, so that it takes some seconds; 0: it is not drained."""
    sent: int = 0
    """Messages sent by 100 callers; as many in batches where it has them."""
    options: dict[str, object] = field(default_factory=dict)
    at_least_once: bool = False
    """At least once, and results kept: what our own bound compares with."""

    @property
    def is_node(self) -> bool:
        return self.driver.endswith(".mjs")

    @property
    def environment(self) -> str:
        """Peers with the same requirements share one."""
        return self.driver.removeprefix("drive_").partition(".")[0]


OURS = Peer(
    "mqservice",
    "drive_mqservice.py",
    (),
    "at least once: lease of 15 s, results kept",
    drained=60_000,
    sent=60_000,
    at_least_once=True,
)

PEERS = (
    Peer(
        "SAQ",
        "drive_saq.py",
        ("saq[redis]==0.26.4", "typing_extensions>=4.12", *LOOP),
        "at least once where retries > 1: a sweeper, after the job's timeout",
        drained=6000,
        sent=10_000,
        at_least_once=True,
    ),
    Peer(
        "arq",
        "drive_arq.py",
        ("arq==0.28.0", *LOOP),
        "at least once: after job_timeout + 10 s, 310 s by default",
        drained=5000,
        sent=10_000,
        at_least_once=True,
    ),
    Peer(
        "taskiq, list",
        "drive_taskiq.py",
        ("taskiq==0.13.0", "taskiq-redis==1.2.4", *LOOP),
        "at most once: BRPOP; no results",
        drained=15_000,
        sent=15_000,
        options={"broker": "list", "results": False},
    ),
    Peer(
        "taskiq, list, results",
        "drive_taskiq.py",
        ("taskiq==0.13.0", "taskiq-redis==1.2.4", *LOOP),
        "at most once: BRPOP; results kept",
        drained=10_000,
        options={"broker": "list", "results": True},
    ),
    Peer(
        "taskiq, stream",
        "drive_taskiq.py",
        ("taskiq==0.13.0", "taskiq-redis==1.2.4", *LOOP),
        "at least once: XAUTOCLAIM after 600 s; no results",
        drained=10_000,
        sent=15_000,
        options={"broker": "stream", "results": False},
    ),
    Peer(
        "taskiq, stream, results",
        "drive_taskiq.py",
        ("taskiq==0.13.0", "taskiq-redis==1.2.4", *LOOP),
        "at least once: XAUTOCLAIM after 600 s; results kept",
        drained=6000,
        options={"broker": "stream", "results": True},
        at_least_once=True,
    ),
    Peer(
        "streaq",
        "drive_streaq.py",
        ("streaq==7.2.0", *LOOP),
        "at least once: idle stream entries, 60 s by default; results kept",
        drained=6000,
        sent=10_000,
        at_least_once=True,
    ),
    Peer(
        "Celery",
        "drive_celery.py",
        ("celery[redis]==5.7.0", "hiredis==3.5.0"),
        "at least once with acks_late, as here: visibility timeout, 3600 s; results kept",
        drained=3000,
        sent=4000,
        at_least_once=True,
    ),
    Peer(
        "RQ",
        "drive_rq.py",
        ("rq==3.0.0", "hiredis==3.5.0"),
        "abandoned jobs are found by maintenance, up to 10 min; results kept",
        drained=1500,
        sent=4000,
        at_least_once=True,
    ),
    Peer(
        "Dramatiq",
        "drive_dramatiq.py",
        ("dramatiq[redis]==2.2.1", "hiredis==3.5.0"),
        "at least once: unacknowledged ones after 60 s without a heartbeat; results kept",
        drained=8000,
        sent=8000,
        at_least_once=True,
    ),
    Peer(
        "BullMQ, Python",
        "drive_bullmq.py",
        ("bullmq==3.4.4", *LOOP),
        "at least once: lock of 30 s, stalled jobs; results kept",
        drained=5000,
        sent=8000,
        at_least_once=True,
    ),
    Peer(
        "BullMQ, Node",
        "drive_bullmq_node.mjs",
        ("bullmq@6.7.0", "ioredis@6.0.0"),
        "at least once: lock of 30 s, stalled jobs; results kept",
        drained=30_000,
        sent=30_000,
    ),
    Peer(
        "FastStream, list",
        "drive_faststream.py",
        ("faststream[redis]==0.7.8", *LOOP),
        "only sends are measured: RPUSH",
        sent=20_000,
    ),
)
