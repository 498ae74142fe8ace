"""The fault kit does what it says, seen with a plain client."""

import gc
import socket
import time
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.chaos.proxy import Proxy
from tests.chaos.resp import Request, value_end
from tests.chaos.servers import Valkey
from tests.waiting import wait_for


@pytest.fixture
def client(proxy: Proxy) -> Iterator[redis.Redis]:
    """One connection through the proxy, which repeats nothing by itself and waits half a second for an answer."""
    with redis.Redis(
        port=proxy.port, db=5, socket_timeout=0.5, retry=Retry(NoBackoff(), 0), single_connection_client=True
    ) as client:
        client.ping()
        yield client


@pytest.mark.parametrize(
    "value",
    [b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"$3\r\na\r\n\r\n", b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", b"%1\r\n+a\r\n+b\r\n"],
)
def test_value_end_when_bytes_come_one_by_one_then_found_at_the_last(value: bytes) -> None:
    found = [value_end(value[:length]) for length in range(len(value) + 1)]
    assert found == [None] * len(value) + [len(value)]
    assert value_end(b"+x\r\n" + value + b"+y\r\n", 4) == 4 + len(value)


def test_request_when_it_runs_a_script_of_ours_then_it_has_the_scripts_name() -> None:
    from mqservice.scripts import CLAIM

    sha = CLAIM.sha.encode()
    assert Request.parse(b"*2\r\n$7\r\nEVALSHA\r\n$40\r\n" + sha + b"\r\n").name == "claim"
    assert Request.parse(b"*1\r\n$4\r\nPING\r\n").name == "ping"


def test_proxy_when_it_ends_while_clients_come_then_no_socket_is_left(valkey: Valkey) -> None:
    gc.collect()  # what others left is not ours
    for _ in range(40):
        with Proxy(valkey.socket) as proxy:
            clients = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(5)]
        for client in clients:
            client.close()
    gc.collect()  # a socket left open is a warning now, and warnings are errors


def test_swallow_when_called_then_the_connection_stays_open_and_silent_and_new_ones_pass(
    proxy: Proxy, client: redis.Redis, valkey: Valkey
) -> None:
    assert proxy.swallow() == 1
    with pytest.raises(redis.TimeoutError):
        client.set("a", 1)
    with valkey.client() as straight:
        assert straight.get("a") is None
    assert redis.Redis(port=proxy.port).ping()


def test_swallow_when_only_replies_are_then_the_server_still_hears(
    proxy: Proxy, client: redis.Redis, valkey: Valkey
) -> None:
    proxy.swallow(requests=False)
    with pytest.raises(redis.TimeoutError):
        client.set("a", 1)
    with valkey.client() as straight:
        assert straight.get("a") == "1"


def test_swallow_when_the_client_gives_up_then_the_server_believes_in_it_still(
    proxy: Proxy, client: redis.Redis, valkey: Valkey
) -> None:
    proxy.swallow()
    client.close()
    assert proxy.connections == 1
    assert len(valkey.command("CLIENT", "LIST").splitlines()) == 2


@pytest.mark.parametrize("reset", [True, False])
def test_cut_when_called_then_the_client_learns_it(proxy: Proxy, client: redis.Redis, reset: bool) -> None:
    proxy.cut(reset=reset)
    with pytest.raises(redis.ConnectionError, match="reset" if reset else "closed"):
        client.get("a")


def test_half_close_when_called_then_the_server_learns_nothing(
    proxy: Proxy, client: redis.Redis, valkey: Valkey
) -> None:
    proxy.half_close()
    assert len(valkey.command("CLIENT", "LIST").splitlines()) == 2
    with pytest.raises(redis.ConnectionError, match="closed"):
        client.get("a")


@pytest.mark.parametrize(
    ("action", "error", "count"),
    [
        ("drop reply", redis.TimeoutError, 1),
        ("lose reply", redis.ConnectionError, 1),
        ("cut reply", redis.ConnectionError, 1),
        ("cut request", redis.ConnectionError, 0),
        ("duplicate", None, 2),
    ],
)
def test_rule_when_it_hits_then_one_request_is_harmed_and_the_next_one_is_not(
    proxy: Proxy, client: redis.Redis, valkey: Valkey, action: str, error: type[Exception] | None, count: int
) -> None:
    rule = proxy.on("incrby", action, skip=1)
    assert client.incr("other") == 1
    if error is None:
        assert client.incr("a") == 2
        assert rule.replies == [b":1\r\n", b":2\r\n"]
    else:
        with pytest.raises(error):
            client.incr("a")
    assert rule.happened
    with valkey.client() as straight:
        assert int(straight.get("a") or 0) == count
    assert redis.Redis(port=proxy.port, db=5).incr("a") == count + 1


def test_delay_and_throttle_when_set_then_slow(proxy: Proxy, client: redis.Redis) -> None:
    proxy.delay_s = 0.1
    began_at = time.monotonic()
    client.ping()
    assert time.monotonic() - began_at >= 0.2
    proxy.delay_s, proxy.bytes_per_s = 0.0, 10_000
    began_at = time.monotonic()
    client.set("a", b"x" * 2_000)
    assert time.monotonic() - began_at >= 0.2


def test_server_when_mistreated_then_it_ails_as_it_should_and_recovers(valkey: Valkey) -> None:
    with valkey.client() as client:
        client.set("a", 1)
        valkey.fill_memory()
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("a", 2)
        valkey.free_memory()
        valkey.read_only(True)
        with pytest.raises(redis.ResponseError, match="NOREPLICAS"):
            client.set("a", 2)
        valkey.read_only(False)
        valkey.fill_disk()
        client.set("b", b"x" * 100_000)
        wait_for(lambda: valkey.info("persistence")["aof_last_write_status"] == "err", 5)
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            client.set("a", 2)
        valkey.free_disk()
        wait_for(lambda: valkey.info("persistence")["aof_last_write_status"] == "ok", 5)
    valkey.stop()
    assert not valkey.answers()
    valkey.cont()
    valkey.restart()
    with valkey.client() as client:
        assert (client.get("a"), client.strlen("b")) == ("1", 100_000), "it came back with its data"
