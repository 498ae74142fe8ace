"""TLS to Redis: it works with the right files, and says at once what is wrong with others."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from mqservice.config import RedisConfig, full_url
from mqservice.errors import ConfigError
from mqservice.tls import TlsConnection
from mqservice.wires import client
from tests.processes import fetch, serving
from tests.tls import Authority, Files, tls_proxy
from tests.waiting import wait_for

SEND = "/v1/queues/echo/messages?wait=5"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls files"))


@pytest.fixture
def files(authority: Authority) -> Files:
    return authority.files


@pytest.fixture
def tls_url(url: str, authority: Authority) -> Iterator[str]:
    with tls_proxy(urlsplit(url).path, authority.server_context("localhost", wants_client=False)) as port:
        yield f"rediss://localhost:{port}/5"


@pytest.fixture
def mutual_url(url: str, authority: Authority) -> Iterator[str]:
    with tls_proxy(urlsplit(url).path, authority.server_context("localhost", wants_client=True)) as port:
        yield f"rediss://localhost:{port}/5"


def failing(url: str, **environ: str) -> tuple[int, str, float]:
    """Start a service that cannot; return its exit code, what it says, and how long it took."""
    started = time.monotonic()
    with serving(url, **environ) as served:
        code = served.exit_code(20)
        return code, "\n".join(served.err), time.monotonic() - started


def test_service_when_the_ca_is_right_then_it_works_over_tls(tls_url: str, files: Files) -> None:
    with serving(tls_url, MQSERVICE_REDIS__CA_FILE=files.ca) as served:
        served.started()
        assert served.get("/prodcons")[0] == 302
        wait_for(lambda: any(line.startswith("Task get ") for line in served.out))
        assert served.get("/pubsub")[0] == 302
        wait_for(lambda: len([line for line in served.out if line.startswith("Task get ")]) == 2)
        status, body = fetch(served.url + SEND, "POST", {"Content-Length": "0", "Content-Type": "text/plain"})
        assert (status, '"state":"done"' in body) == (200, True)


@pytest.mark.parametrize("together", [True, False])
def test_service_when_the_server_wants_a_certificate_then_ours_is_shown(
    mutual_url: str, files: Files, together: bool
) -> None:
    shown = {"MQSERVICE_REDIS__CERT_FILE": files.client}
    if not together:
        shown = {"MQSERVICE_REDIS__CERT_FILE": files.client_cert, "MQSERVICE_REDIS__KEY_FILE": files.client_key}
    with serving(mutual_url, MQSERVICE_REDIS__CA_FILE=files.ca, **shown) as served:
        served.started()
        assert served.get("/readyz")[0] == 200


def test_service_when_the_server_wants_a_certificate_and_gets_none_then_exit_3(mutual_url: str, files: Files) -> None:
    code, said, took_s = failing(mutual_url, MQSERVICE_REDIS__CA_FILE=files.ca)
    assert (code, took_s < 12) == (3, True), said
    assert "Traceback" not in said


@pytest.mark.parametrize("which", ["other", "system"])
def test_service_when_the_ca_is_another_then_exit_3_at_once_and_it_says_why(
    tls_url: str, files: Files, which: str
) -> None:
    environ = {"MQSERVICE_REDIS__CA_FILE": files.other_ca} if which == "other" else {}
    code, said, took_s = failing(tls_url, **environ)
    assert (code, took_s < 12) == (3, True), said
    assert "certificate verify failed" in said
    assert "Traceback" not in said


def test_service_when_the_certificate_is_for_another_host_then_exit_3(
    url: str, authority: Authority, files: Files
) -> None:
    context = authority.server_context("redis.example", wants_client=False)
    with tls_proxy(urlsplit(url).path, context) as port:
        code, said, _ = failing(f"rediss://localhost:{port}/5", MQSERVICE_REDIS__CA_FILE=files.ca)
    assert code == 3
    assert "Hostname mismatch" in said or "not valid for 'localhost'" in said


def test_service_when_a_file_is_missing_then_exit_2_and_the_key_is_named(tls_url: str) -> None:
    code, said, _ = failing(tls_url, MQSERVICE_REDIS__CA_FILE="/gone/ca.pem")
    assert code == 2
    assert 'redis.ca_file = "/gone/ca.pem": No such file or directory' in said


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"ca_file": "README.md"}, "redis.ca_file"),
        ({"cert_file": "README.md"}, "redis.cert_file"),
        ({"cert_file": "{client_cert}"}, "redis.cert_file"),
        ({"key_file": "{client_key}"}, "redis.key_file: the certificate that belongs to it is missing"),
        ({"cert_file": "{other_ca}", "key_file": "{client_key}"}, "redis.cert_file"),
        ({"ca_file": "{ca}", "url": "redis://localhost"}, "redis.ca_file is for TLS, which needs a rediss:// url"),
    ],
)
def test_full_url_when_a_file_is_wrong_then_the_error_names_the_key(
    files: Files, keys: dict[str, str], expected: str
) -> None:
    filled = {key: value.format_map(files._asdict()) for key, value in keys.items()}
    with pytest.raises(ConfigError, match=expected):
        full_url(RedisConfig(**{"url": "rediss://localhost", **filled}))


def test_client_when_over_tls_then_all_connections_share_one_context_that_trusts_one_ca(files: Files) -> None:
    pool = client(full_url(RedisConfig(url="rediss://localhost", ca_file=files.ca)), 2).connection_pool
    one, two = pool.make_connection(), pool.make_connection()
    assert isinstance(one, TlsConnection)
    context = one.ssl_context.get()
    assert context is two.ssl_context.get()
    assert context.cert_store_stats()["x509_ca"] == 1
    assert (context.check_hostname, context.verify_mode.name) == (True, "CERT_REQUIRED")


# The password


@pytest.mark.parametrize(
    ("url", "content", "expected"),
    [
        ("redis://h:1/5", "pw\n", "redis://:pw@h:1/5"),
        ("redis://me@h", "p w:/@%", "redis://me:p%20w%3A%2F%40%25@h"),
        ("redis://me:@h", "pw\r\n", "redis://me:pw@h"),
        ("unix:///run/redis.sock?db=5", "pw", "unix://:pw@/run/redis.sock?db=5"),
    ],
)
def test_full_url_when_the_password_is_in_a_file_then_it_is_put_in(
    tmp_path: Path, url: str, content: str, expected: str
) -> None:
    (tmp_path / "password").write_text(content)
    assert full_url(RedisConfig(url=url, password_file=str(tmp_path / "password"))) == expected


@pytest.mark.parametrize(
    ("url", "content", "expected"),
    [
        ("redis://h", "", "it is empty"),
        ("redis://h", "\n", "it is empty"),
        ("redis://h", None, "No such file"),
        ("redis://me:pw@h", "pw", "redis.url has a password as well"),
    ],
)
def test_full_url_when_the_password_file_is_wrong_then_the_error_names_it(
    tmp_path: Path, url: str, content: str | None, expected: str
) -> None:
    if content is not None:
        (tmp_path / "password").write_text(content)
    with pytest.raises(ConfigError, match=rf"redis.password_file.*{expected}"):
        full_url(RedisConfig(url=url, password_file=str(tmp_path / "password")))


# A server that speaks TLS itself, where one is installed; the private one does not


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server is installed")
def test_service_when_redis_itself_speaks_tls_then_it_works(authority: Authority, files: Files, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    certificate = tmp_path / "server.pem"
    authority.write_server("localhost", certificate)
    options = {
        "port": "0",
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "tls-cert-file": str(certificate),
        "tls-key-file": str(certificate),
        "tls-ca-cert-file": str(files.ca),
        "tls-auth-clients": "yes",
        "dir": str(tmp_path),
        "save": "",
        "requirepass": "pw",
    }
    command = ["redis-server", *(part for key, value in options.items() for part in (f"--{key}", value))]
    real = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        url = f"rediss://:pw@localhost:{port}/5"
        shown = {"ssl_ca_certs": files.ca, "ssl_certfile": files.client, "ssl_keyfile": files.client}
        wait_for(lambda: _answers(url, shown), 10)
        environ = {"MQSERVICE_REDIS__CA_FILE": files.ca, "MQSERVICE_REDIS__CERT_FILE": files.client}
        with serving(url, **environ) as served:
            served.started()
            assert served.get("/prodcons")[0] == 302
            wait_for(lambda: any(line.startswith("Task get ") for line in served.out))
        code, said, _ = failing(url, MQSERVICE_REDIS__CA_FILE=files.ca)
        assert code == 3, said
    finally:
        real.kill()
        real.wait(10)


def _answers(url: str, files: dict[str, str]) -> bool:
    with redis.Redis.from_url(url, **files) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
