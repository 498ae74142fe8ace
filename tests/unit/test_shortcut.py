"""The memory for routes: who is asked once is not asked again, and what must be asked always is."""

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from mqservice.web import shortcut
from mqservice.web.shortcut import remembering


class Asked:
    """An application that counts how often a route is looked for."""

    def __init__(self) -> None:
        self.count = 0
        app = web.Application()
        app.router.add_post("/queues/{queue}", self._answer)
        app.router.add_get("/queues/{queue}", self._answer)
        app.freeze()
        self._app = app
        self.handle = remembering(self._find)

    async def post(self, path: str, method: str = "POST", **headers: str) -> tuple[int, str]:
        """Return status and text of the answer."""
        response = await self.handle(make_mocked_request(method, path, headers, app=self._app))
        assert isinstance(response, web.Response)
        return response.status, response.text or ""

    async def _find(self, request: web.Request) -> web.StreamResponse:
        self.count += 1
        try:
            return await self._app._handle(request)
        except web.HTTPException as refusal:
            return web.Response(status=refusal.status)

    async def _answer(self, request: web.Request) -> web.Response:
        if request.headers.get("X-Fail"):
            return web.Response(status=400)
        return web.Response(text=f"{request.method} {request.match_info['queue']} {request.app is self._app}")


@pytest.fixture
def asked() -> Asked:
    return Asked()


async def test_post_when_its_path_was_answered_before_then_its_route_is_known(asked: Asked) -> None:
    assert [await asked.post(f"/queues/{name}") for name in "aabab"] == [(200, f"POST {name} True") for name in "aabab"]
    assert asked.count == 2


@pytest.mark.parametrize(
    "request_",
    [
        {"path": "/queues/a", "method": "GET"},
        {"path": "/queues/a?wait=5"},
        {"path": "/queues/a", "Expect": "100-continue"},
        {"path": "/elsewhere"},
        {"path": "/queues/b", "X-Fail": "1"},
    ],
    ids=str,
)
async def test_request_when_it_is_another_or_failed_then_its_route_is_looked_for_each_time(
    asked: Asked, request_: dict[str, Any]
) -> None:
    await asked.post("/queues/a")
    answers = [await asked.post(**request_) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert asked.count == 4


async def test_paths_when_more_than_are_remembered_then_all_are_forgotten(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortcut, "_PATHS", 2)
    for name in "abcb":
        assert (await asked.post(f"/queues/{name}"))[0] == 200
    assert asked.count == 4
