"""Who may do what over HTTP: tokens, scopes, queues, sessions, hosts, foreign pages, rates; by the table of routes."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import pytest
import redis.asyncio
from aiohttp import ClientSession, CookieJar, DummyCookieJar

from mqservice import Service
from mqservice.config import AuthConfig, Config, HttpConfig, ServiceConfig, Token
from mqservice.config.sections import Scope
from mqservice.web.access import SCOPES
from mqservice.web.problems import PROBLEMS
from mqservice.web.route import Route
from mqservice.web.routes import ROUTES

ALL: tuple[Scope, ...] = SCOPES
NAMES = {
    "queue": "echo",
    "channel": "news",
    "pattern": "news.*",
    "id": "nobody",
    "name": "nightly",
    "code": "queue-full",
    "file": "palette.css",
}
SCHEDULE = {"queue": "mine", "every": 3600}
IDS = [f"{route.method} {route.plain_path}" for route in ROUTES]
TABLE = pytest.mark.parametrize("route", ROUTES, ids=IDS)
TUTORIAL = pytest.mark.parametrize("path", ["/prodcons", "/pubsub"])


def token(secret: str, *scopes: Scope, queues: tuple[str, ...] | None = None) -> Token:
    sha256 = hashlib.sha256(secret.encode()).hexdigest()
    return Token(sha256=sha256, scopes=scopes, **({"queues": queues} if queues else {}))  # type: ignore[arg-type]


TOKENS = {
    **{scope: token(f"secret of {scope}", scope) for scope in ALL},
    "mine": token("secret of mine", *ALL, queues=("mine",)),
    "any.1": token("secret of any.1", *ALL),
}


class Got(NamedTuple):
    """An answer; the body of one that is no problem is left unread, since a stream has no end."""

    status: int
    headers: Any
    problem: str
    detail: str


class Caller:
    """Asks a service."""

    def __init__(self, url: str, session: ClientSession) -> None:
        self.url, self.session = url, session

    async def __call__(self, method: str, path: str, owner: str = "", body: Any = None, **headers: str) -> Got:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if owner:
            named["Authorization"] = f"Bearer secret of {owner}"
        async with self.session.request(
            method, self.url + path, json=body, headers=named, allow_redirects=False
        ) as response:
            kind = response.headers.get("Content-Type", "")
            if kind != "application/problem+json" or method == "HEAD":
                return Got(response.status, response.headers, "", "")
            problem = await response.json(content_type=None)
            assert problem["status"] == response.status
            return Got(response.status, response.headers, problem["type"].rpartition("/")[2], problem["detail"])

    async def json(self, path: str, owner: str) -> Any:
        headers = {"Authorization": f"Bearer secret of {owner}"}
        async with self.session.get(self.url + path, headers=headers) as response:
            assert response.status == 200
            return await response.json()

    async def ask(self, route: Route, owner: str = "", queue: str = "echo", **headers: str) -> Got:
        """Ask a route as its description says."""
        path = route.plain_path.format_map({**NAMES, "queue": queue})
        query = "?state=dead" if route.operation == "messages.purge" else ""
        body = {"queue": queue, "every": 3600} if route.operation == "schedules.put" else None
        if route.operation == "batches.send":
            body = [{"body": 1}]  # type: ignore[assignment]
        elif route.body is not None and body is None:
            body = {"a": 1}
        return await self(route.method, path + query, owner, body, **headers)


@asynccontextmanager
async def serving(config: Config, **http: Any) -> AsyncIterator[Caller]:
    tokens = http.pop("tokens", TOKENS)
    config = msgspec.structs.replace(
        config,
        service=ServiceConfig(drain_s=0),
        http=HttpConfig(port=0, **http),
        auth=AuthConfig(tokens=tokens),
    )
    service = Service(config)

    @service.handler("echo")
    async def echo(body: Any) -> Any:
        return body

    async with service, ClientSession(cookie_jar=DummyCookieJar()) as session:
        yield Caller(service.url.replace("0.0.0.0", "127.0.0.1"), session)


@pytest.fixture
async def api(config: Config) -> AsyncIterator[Caller]:
    async with serving(config) as caller:
        yield caller


@pytest.fixture
async def open_api(config: Config) -> AsyncIterator[Caller]:
    async with serving(config, tokens={}) as caller:
        yield caller


# Scopes


@TABLE
async def test_route_when_asked_then_it_wants_exactly_what_the_table_says(api: Caller, route: Route) -> None:
    nobody = await api.ask(route)
    if not route.needs_token:
        assert nobody.status not in (401, 403)
        return
    assert nobody.status == 401
    assert nobody.headers["WWW-Authenticate"] == 'Bearer realm="mqservice"'
    stranger = await api.ask(route, "nobody")
    assert stranger.status == 401
    assert 'error="invalid_token"' in stranger.headers["WWW-Authenticate"]
    for scope in ALL:
        got = await api.ask(route, scope)
        if route.access in ("token", scope):
            assert got.status not in (401, 403, 500)
        else:
            assert got.status == 403
            assert f'scope="{route.access}"' in got.headers["WWW-Authenticate"]


@TABLE
async def test_route_when_the_token_is_for_another_queue_then_only_what_filters_answers(
    api: Caller, route: Route
) -> None:
    other = await api.ask(route, "mine", queue="echo")
    mine = await api.ask(route, "mine", queue="mine")
    if not route.needs_token:
        assert {other.status, mine.status}.isdisjoint({401, 403})
    elif "queue" in route.names:
        assert (other.status, mine.status in (401, 403)) == (403, False)
    elif route.filters_queues:
        assert route.path == "/prodcons" or mine.status not in (401, 403)
    else:
        assert (other.status, mine.status) == (403, 403)


async def test_problem_when_unauthorized_or_forbidden_then_it_has_its_type_and_no_secret(api: Caller) -> None:
    got = await api("GET", "/v1/queues")
    assert (got.problem, PROBLEMS[got.problem].status) == ("unauthorized", 401)
    got = await api("GET", "/v1/queues", "nobody")
    assert (got.problem, got.detail) == ("unauthorized", "this token is not known here")
    got = await api("GET", "/v1/queues", "send")
    assert (got.problem, got.detail) == ("forbidden", "token send lacks the scope read")
    got = await api("GET", "/v1/queues/echo", "mine")
    assert (got.problem, got.detail) == ("forbidden", "token mine is for nothing but the queues: mine")


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer secret of read", 200),
        ("bEARER  secret of read ", 200),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("Bearer secret of rea", 401),
        ("Bearer secret of read\udcff", 401),
        ("Basic c2VjcmV0IG9mIHJlYWQ=", 401),
        ("secret of read", 401),
        (f"Bearer {'x' * 4000}", 401),
    ],
)
async def test_authorization_when_in_any_form_then_only_bearer_and_the_secret_do(
    api: Caller, authorization: str, status: int
) -> None:
    raw = f"GET /v1/queues HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: {authorization}\r\n\r\n"
    assert (await exchange(api, raw.encode("utf-8", "surrogateescape"))).startswith(f"HTTP/1.1 {status} ".encode())


async def exchange(api: Caller, raw: bytes) -> bytes:
    """Send bytes, read until the other side closes."""
    port = int(api.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_send_when_it_waits_then_the_token_must_read_too(api: Caller) -> None:
    path = "/v1/queues/echo/messages"
    assert (await api("POST", path, "send", 1)).status == 202
    got = await api("POST", f"{path}?wait=5", "send", 1)
    assert (got.problem, got.detail) == ("forbidden", "token send lacks the scope read")
    assert (await api("POST", path, "send", 1, Prefer="wait=5")).status == 403
    assert (await api("POST", f"{path}?wait=5", "any.1", 1)).status == 200


async def test_idempotency_key_when_another_token_uses_it_then_it_gets_no_answer_of_the_first(api: Caller) -> None:
    path = "/v1/queues/echo/messages?wait=5"
    assert (await api("POST", path, "any.1", 1, Idempotency_Key="k")).status == 200
    again = await api("POST", path, "any.1", 1, Idempotency_Key="k")
    assert (again.status, again.headers.get("Idempotency-Replayed")) == (200, "true")
    assert (await api("POST", path, "send", 1, Idempotency_Key="k")).problem == "forbidden"


# Queues


async def test_lists_when_the_token_is_restricted_then_they_show_its_queues_alone(api: Caller) -> None:
    for queue in ("mine", "other"):
        assert (await api("POST", f"/v1/queues/{queue}/messages", "any.1", 1)).status == 202
        body = {"queue": queue, "every": 3600}
        assert (await api("PUT", f"/v1/schedules/{queue}", "any.1", body)).status == 201
    queues = await api.json("/v1/queues", "mine")
    schedules = await api.json("/v1/schedules", "mine")
    assert [queue["name"] for queue in queues["queues"]] == ["mine"]
    assert [schedule["name"] for schedule in schedules["schedules"]] == ["mine"]
    assert len((await api.json("/v1/schedules", "any.1"))["schedules"]) == 2
    assert {"mine", "other"} <= {queue["name"] for queue in (await api.json("/v1/queues", "any.1"))["queues"]}


async def test_schedule_when_the_token_is_restricted_then_only_those_of_its_queues_can_be_touched(api: Caller) -> None:
    path = "/v1/schedules/theirs"
    assert (await api("PUT", path, "mine", {"queue": "other", "every": 60})).problem == "forbidden"
    assert (await api("PUT", path, "any.1", {"queue": "other", "every": 60})).status == 201
    assert (await api("GET", path, "mine")).problem == "no-such-schedule"
    assert (await api("PUT", path, "mine", SCHEDULE)).problem == "forbidden"
    assert (await api("DELETE", path, "mine")).problem == "forbidden"
    assert (await api.json(path, "any.1"))["queue"] == "other"
    assert (await api("PUT", "/v1/schedules/own", "mine", SCHEDULE)).status == 201
    assert (await api("DELETE", "/v1/schedules/own", "mine")).status == 204


async def test_queue_when_percent_encoded_then_the_restriction_still_holds(api: Caller) -> None:
    assert (await api("POST", "/v1/queues/m%69ne/messages", "mine", 1)).status == 202
    for queue in ("%65cho", "mine%2f..%2fecho", "mine/../echo", "MINE", "mine%00"):
        assert (await api("POST", f"/v1/queues/{queue}/messages", "mine", 1)).status in (400, 403, 404)


# Sessions


async def test_session_when_opened_with_a_token_then_its_cookie_does_as_the_token(api: Caller) -> None:
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as browser:
        page = Caller(api.url, browser)
        assert (await page("GET", "/v1/queues")).status == 401
        opened = await page("POST", "/v1/session", "read", Origin=page.url, Sec_Fetch_Site="same-origin")
        cookie = opened.headers["Set-Cookie"]
        assert opened.status == 200
        assert cookie.startswith("mqservice=read.")
        for attribute in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"):
            assert attribute in cookie
        assert "Secure" not in cookie
        assert "secret" not in cookie
        assert (await page("GET", "/v1/queues")).status == 200
        assert (await page("POST", "/v1/queues/echo/messages", body=1)).problem == "forbidden"
        async with browser.get(f"{page.url}/v1/session") as response:
            session = await response.json()
        assert (session["name"], session["scopes"], session["queues"]) == ("read", ["read"], None)
        assert session["expires_s"] > 1e9
        assert (await page("POST", "/v1/session")).problem == "unauthorized"
        # A token that is shown counts, and not the cookie beside it.
        assert (await page("GET", "/v1/queues", "nobody")).status == 401
        assert (await page("DELETE", "/v1/session")).status == 204
        assert (await page("GET", "/v1/queues")).status == 401


async def test_session_when_opened_over_tls_then_its_cookie_stays_there(config: Config) -> None:
    async with serving(config, hosts=("mq.example",)) as api:
        got = await api("POST", "/v1/session", "read", Host="mq.example", Origin="https://mq.example")
        assert "Secure" in got.headers["Set-Cookie"]


async def test_session_when_another_process_is_asked_then_the_cookie_is_good_there_too(config: Config) -> None:
    changed = {**TOKENS, "read": token("another secret", "read")}
    async with serving(config) as one, serving(config) as two, serving(config, tokens=changed) as three:
        opened = await one("POST", "/v1/session", "read")
        cookie = opened.headers["Set-Cookie"].partition(";")[0]
        assert (await two("GET", "/v1/queues", Cookie=cookie)).status == 200
        assert (await three("GET", "/v1/queues", Cookie=cookie)).detail.startswith("the session has ended")


async def test_session_when_there_are_no_tokens_then_everybody_has_all_scopes_and_no_cookie(open_api: Caller) -> None:
    async with open_api.session.post(f"{open_api.url}/v1/session") as response:
        assert await response.json() == {"name": None, "scopes": list(ALL), "queues": None, "expires_s": None}
        assert "Set-Cookie" not in response.headers


async def test_whoami_when_asked_with_a_token_then_it_tells_what_that_may(api: Caller) -> None:
    expected = {"name": "mine", "scopes": list(ALL), "queues": ["mine"], "expires_s": None}
    assert await api.json("/v1/session", "mine") == expected


# Foreign hosts and pages


@TABLE
async def test_route_when_another_host_is_meant_then_421_but_for_probes(open_api: Caller, route: Route) -> None:
    got = await open_api.ask(route, Host="evil.example:5000")
    if route.access == "probe":
        assert got.status == 200
    else:
        assert (got.status, got.problem) == (421, "" if route.method == "HEAD" else "misdirected")


@TABLE
@pytest.mark.parametrize("headers", [{"Sec_Fetch_Site": "cross-site"}, {"Origin": "http://evil.example"}])
async def test_route_when_a_foreign_page_asks_then_it_changes_nothing(
    open_api: Caller, route: Route, headers: dict[str, str]
) -> None:
    got = await open_api.ask(route, **headers)
    assert (got.status == 403) == route.changes
    if route.method not in ("GET", "HEAD"):
        assert got.problem == "cross-site"


@TUTORIAL
async def test_tutorial_page_when_a_foreign_page_navigates_there_then_nothing_is_sent(
    config: Config, redis_client: redis.asyncio.Redis, path: str
) -> None:
    config = msgspec.structs.replace(config, http=HttpConfig(port=0))
    async with serving(config, tokens={}) as api, redis_client.pubsub() as channel:
        await channel.subscribe("task:pubsub:channel")
        assert (await channel.get_message(timeout=5))["type"] == "subscribe"
        for site in ("cross-site", "same-site"):
            got = await api("GET", path, Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document")
            assert got.problem == "cross-site"
        assert await redis_client.llen("mq:prodcons") + await redis_client.llen("task:prodcons:queue") == 0
        assert await channel.get_message(timeout=0.1) is None
        for headers in ({}, {"Sec_Fetch_Site": "same-origin"}, {"Sec_Fetch_Site": "none"}):
            assert (await api("GET", path, **headers)).status == 302


async def test_refusal_when_headers_are_no_text_then_it_is_still_a_problem(open_api: Caller) -> None:
    for headers in (b"Host: \xff\xfe", b"Host: localhost\r\nOrigin: \xff", b"Host: localhost\r\nSec-Fetch-Site: \xff"):
        raw = b"DELETE /v1/session HTTP/1.1\r\n" + headers + b"\r\nConnection: close\r\n\r\n"
        answer = await exchange(open_api, raw)
        assert answer.split(b" ", 2)[1] in (b"400", b"403", b"421")
        assert b"application/problem+json" in answer


# Rates


async def test_rate_when_a_token_is_over_it_then_429_until_retry_after_and_others_are_not(config: Config) -> None:
    async with serving(config, rate_per_s=0.5, rate_burst=3) as api:
        assert [(await api("GET", "/v1/session", "read")).status for _ in range(3)] == [200] * 3
        got = await api("GET", "/v1/session", "read")
        assert (got.status, got.problem) == (429, "rate-limited")
        assert 1 <= int(got.headers["Retry-After"]) <= 2
        assert (await api("GET", "/v1/session", "send")).status == 200
        assert [(await api("GET", "/v1/session", f"guess {n}")).status for n in range(5)] == [401] * 3 + [429] * 2
        assert (await api("GET", "/docs")).status == 429
        assert (await api("GET", "/v1/session", "admin")).status == 200
        for probe in ("/livez", "/readyz"):
            assert [(await api("GET", probe)).status for _ in range(5)] == [200] * 5


async def test_rate_when_there_are_no_tokens_then_it_is_that_of_the_address(config: Config) -> None:
    async with serving(config, tokens={}, rate_per_s=0.01, rate_burst=2) as api:
        assert [(await api("GET", "/")).status for _ in range(3)] == [200, 200, 429]
        assert (await api("POST", "/v1/queues/echo/messages", body=1)).problem == "rate-limited"


# Headers


RAW = {
    404: b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    405: b"PATCH /v1/queues HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    400: b"GET / HTTP/1.1\r\nHost: localhost\r\nbroken header\r\n\r\n",
    417: b"POST /v1/session HTTP/1.1\r\nHost: localhost\r\nExpect: tea\r\nConnection: close\r\n\r\n",
}
PROTECTING = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "mqservice",
}
PAGE_PROTECTING = {"X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin"}


def check_headers(headers: Any) -> None:
    assert {name: headers.get(name) for name in PROTECTING} == PROTECTING
    policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["base-uri"] == "'none'"
    assert policy["form-action"] == "'none'"
    assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "http:", "https:"} & set(" ".join(policy.values()).split())
    assert "Access-Control-Allow-Origin" not in headers
    if headers.get("Content-Type", "").startswith("text/html"):
        assert {name: headers.get(name) for name in PAGE_PROTECTING} == PAGE_PROTECTING


@TABLE
async def test_answer_when_of_any_route_then_it_protects_itself(api: Caller, route: Route) -> None:
    for owner in ("", "any.1"):
        got = await api.ask(route, owner)
        check_headers(got.headers)
        if route.path.startswith("/v1/"):
            assert got.headers["Cache-Control"] in ("no-store", "no-cache")


@pytest.mark.parametrize("status", RAW)
async def test_answer_when_of_the_http_server_itself_then_it_protects_itself(api: Caller, status: int) -> None:
    head, _, body = (await exchange(api, RAW[status])).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first.split()[1] == f"{status}"
    check_headers(dict(line.split(": ", 1) for line in lines))
    assert json.loads(body)["status"] == status


# What is said of it


async def test_description_when_there_are_tokens_then_each_operation_says_which_it_needs(
    api: Caller, open_api: Caller
) -> None:
    async with api.session.get(f"{api.url}/openapi.json") as response:
        document = await response.json()
    async with open_api.session.get(f"{open_api.url}/openapi.json") as response:
        free = await response.json()
    assert set(document["components"]["securitySchemes"]) == {"token", "session"}
    assert "securitySchemes" not in free["components"]
    for route in ROUTES:
        operation = document["paths"][route.plain_path][route.method.lower()]
        ways = {name: scopes for way in operation["security"] for name, scopes in way.items()}
        assert ("token" in ways) == route.needs_token
        assert ways.get("token", []) == ([route.access] if route.needs_token and route.access != "token" else [])
        assert ("401" in operation["responses"]) == route.needs_token
        assert "security" not in free["paths"][route.plain_path][route.method.lower()]


async def test_docs_when_there_are_tokens_then_the_curl_lines_show_one(api: Caller, open_api: Caller) -> None:
    async with api.session.get(f"{api.url}/docs") as response:
        page = await response.text()
    async with open_api.session.get(f"{open_api.url}/docs") as response:
        free = await response.text()
    assert page.count("Authorization: Bearer $MQSERVICE_TOKEN") == sum(route.needs_token for route in ROUTES)
    assert "MQSERVICE_TOKEN" not in free
    assert "needs one with the scope <code>admin</code>" in free
