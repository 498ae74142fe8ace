"""Files to deploy with, as data of the package: printed by `mqservice config <name>`, tested against the defaults."""

from pathlib import Path
from typing import Final, NamedTuple


class Text(NamedTuple):
    """One file of this folder, and what it is good for."""

    file: str
    help: str


TEXTS: Final = {
    "systemd": Text("mqservice@.service", "Print a hardened unit: mqservice@1 to mqservice@N share one port."),
    "docker": Text("Dockerfile", "Print a Dockerfile: small, not root, with a health check."),
    "compose": Text("compose.yaml", "Print a compose file: the service and a Valkey that keeps its data."),
    "grafana": Text("grafana.json", "Print a Grafana dashboard: import it, and choose your Prometheus."),
    "nginx": Text("nginx.conf", "Print a site for nginx: TLS ends there, streams and long polls pass."),
}
"""Name → file. What stands here is a command of `mqservice config`."""


def read(text: Text) -> str:
    """Return what is in the file."""
    return Path(__file__).with_name(text.file).read_text("utf-8")
