"""The site that `mqservice config nginx` prints, in front of a real service."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mqservice import deploy
from tests.commands import mq, start
from tests.processes import Served
from tests.waiting import wait_for

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx here")


@pytest.fixture(scope="module")
def proxied(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of nginx with our site, without TLS."""
    place: Path = tmp_path_factory.mktemp("nginx")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    site = deploy.read(deploy.TEXTS["nginx"])
    site = re.sub(r"^\s*(listen \[::\]|ssl_).*$", "", site, flags=re.MULTILINE)
    site = site.replace("listen 443 ssl http2", f"listen 127.0.0.1:{port}")
    site = site.replace("server 127.0.0.1:5000", f"server {served.url.removeprefix('http://')}")
    temporary = "".join(
        f"{kind}_temp_path {place}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # whose the directory is
    main = place / "nginx.conf"
    main.write_text(f"daemon off; {user} pid {place}/pid; events {{}} http {{ access_log off; {temporary} {site} }}")
    with subprocess.Popen([NGINX or "", "-e", f"{place}/error.log", "-c", str(main)]) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: mq(url, "health").returncode == 0, 15)
            yield url
        finally:
            process.terminate()


def test_nginx_when_in_front_then_messages_and_long_polls_pass(proxied: str) -> None:
    assert mq(proxied, "send", "sleep", "0.5", "--wait", "10s").stdout == "0.5\n"


def test_nginx_when_in_front_then_a_large_batch_passes_and_a_large_message_is_refused(proxied: str) -> None:
    many = mq(proxied, "send", "echo", stdin=f'"{"x" * 500_000}"\n' * 4)
    assert (many.returncode, len(many.stdout.split())) == (0, 4), many.stderr
    large = mq(proxied, "send", "echo", "-", stdin=f'"{"x" * 1_100_000}"')
    assert large.returncode == 1
    assert "413" in large.stderr


def test_nginx_when_in_front_then_events_come_at_once(proxied: str) -> None:
    with start(proxied, "tail", "news") as tailing:
        assert tailing.stdout is not None
        listening = lambda: mq(proxied, "publish", "news", "7", "--json").stdout  # noqa: E731
        wait_for(lambda: '"receivers": 1' in listening() or tailing.poll() is not None, 15)
        assert tailing.stdout.readline()
        tailing.terminate()
