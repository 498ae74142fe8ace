"""Which hosts are ours, and which pages may ask."""

import pytest
from aiohttp.test_utils import make_mocked_request

from mqservice.config import HttpConfig
from mqservice.web.origin import Origins
from mqservice.web.problems import Refusal

ORIGINS = Origins(HttpConfig(host="MQ-box", hosts=("mq.example",)))


def host_refusal(host: str | None, origins: Origins = ORIGINS) -> str:
    headers = {} if host is None else {"Host": host}
    return _code(lambda: origins.check_host(make_mocked_request("GET", "/", headers=headers)))


def site_refusal(**headers: str) -> str:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return _code(lambda: ORIGINS.check_site(make_mocked_request("POST", "/", headers=named)))


def _code(check: object) -> str:
    try:
        check()  # type: ignore[operator]
    except Refusal as refusal:
        return refusal.code
    return ""


@pytest.mark.parametrize(
    "host",
    [
        *(
            None,
            "localhost",
            "localhost:5000",
            "LOCALHOST:1",
            "localhost.",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
        ),
        *("10.0.0.7:5000", "[fe80::1]", "mq.example", "mq.example:443", "MQ.Example.", "mq-box:5000"),
    ],
)
def test_host_when_it_is_ours_or_an_address_then_it_passes(host: str | None) -> None:
    assert host_refusal(host) == ""


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:5000", "localhost.evil.example", "127.0.0.1.evil.example", "mq.example.evil"),
        *("", ":5000", "xmq.example", "localhost@evil", "0.0.0.0:5000", "[::]:5000", "[::1", "127.0.0.1 evil"),
    ],
)
def test_host_when_it_is_another_then_it_is_misdirected(host: str) -> None:
    accepted = {"[::1"}  # an unclosed bracket names no other machine
    assert host_refusal(host) == ("" if host in accepted else "misdirected")


def test_host_when_we_listen_on_all_addresses_then_that_name_is_ours() -> None:
    assert host_refusal("0.0.0.0:5000", Origins(HttpConfig(host="0.0.0.0"))) == ""


def test_hosts_when_a_client_names_thousands_then_no_more_than_256_are_remembered() -> None:
    for number in range(2000):
        host_refusal(f"host-{number}.example")
    assert ORIGINS._is_ours.cache_info().currsize == 256


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Site": "same-origin", "Origin": "https://behind.a.proxy"},
        {"Host": "localhost:5000", "Origin": "http://localhost:5000"},
        {"Host": "10.0.0.7", "Origin": "http://10.0.0.7"},
        {"Host": "127.0.0.1:5000", "Origin": "https://mq.example"},
    ],
)
def test_site_when_our_own_page_or_no_browser_asks_then_it_passes(headers: dict[str, str]) -> None:
    assert site_refusal(**headers) == ""


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": ""},
        {"Sec_Fetch_Site": "cross-site", "Host": "localhost", "Origin": "http://localhost"},
        {"Host": "localhost:5000", "Origin": "http://localhost:3000"},
        {"Host": "localhost:5000", "Origin": "http://evil.example"},
        {"Host": "localhost:5000", "Origin": "null"},
        {"Host": "localhost:5000", "Origin": ""},
        {"Host": "", "Origin": "http://"},
        {"Origin": "http://evil.example"},
        {"Host": "localhost", "Origin": "http://mq.example.evil"},
    ],
)
def test_site_when_a_foreign_page_asks_then_it_is_refused(headers: dict[str, str]) -> None:
    assert site_refusal(**headers) == "cross-site"
