"""The application of the monitor."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from asgiserver.metrics.exposition import CONTENT_TYPE
from asgiserver.metrics.monitor import Monitor
from tests.fakes import at_once, settle

from .board import SETTINGS, Service


@pytest.fixture
def service() -> Service:
    made = Service()
    made.start()
    return made


def asked(service: Service, path: str, method: str = "GET") -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is to be received")

    at_once(Monitor(service.reading)({"type": "http", "path": path, "method": method}, receive, send))
    start, body = sent
    assert start["type"] == "http.response.start"
    assert int(dict(start["headers"])[b"content-length"]) == len(body["body"])
    return start["status"], dict(start["headers"]), body["body"]


def test_the_text_has_the_media_type_of_its_format(service: Service) -> None:
    for method in ("GET", "HEAD"):
        status, fields, body = asked(service, "/metrics", method)
        assert (status, fields[b"content-type"].decode()) == (200, CONTENT_TYPE)
        assert body.startswith(b"# HELP asgiserver_")


def test_health_and_readiness(service: Service) -> None:
    assert [asked(service, path)[0] for path in ("/healthz", "/readyz")] == [200, 200]
    service.now += 1000
    assert [asked(service, path)[0] for path in ("/healthz", "/readyz")] == [503, 200]
    assert [asked(Service(), path)[0] for path in ("/healthz", "/readyz")] == [503, 503]


def test_the_page_and_its_settings(service: Service) -> None:
    status, fields, body = asked(service, "/")
    assert (status, fields[b"content-type"]) == (200, b"text/html; charset=utf-8")
    assert b"asgiserver" in body
    assert json.loads(asked(service, "/settings.json")[2]) == SETTINGS


def test_all_else_is_refused(service: Service) -> None:
    assert asked(service, "/live")[0] == 404
    assert asked(service, "/metrics/")[0] == 404
    status, fields, _ = asked(service, "/metrics", "POST")
    assert (status, fields[b"allow"]) == (405, b"GET, HEAD")


@pytest.mark.parametrize(
    ("path", "fields", "accepted"),
    [
        ("/live", {b"host": b"a:1"}, True),
        ("/live", {b"host": b"a:1", b"origin": b"http://A:1"}, True),
        ("/live", {b"host": b"a:1", b"origin": b"http://a"}, False),
        ("/live", {b"host": b"a:1", b"origin": b"http://b:1"}, False),
        ("/live", {b"host": b"a:1", b"origin": b"null"}, False),
        ("/live", {b"host": b"null", b"origin": b"null"}, False),
        ("/", {b"host": b"a:1"}, False),
    ],
)
def test_only_our_own_page_may_look(
    service: Service, path: str, fields: dict[bytes, bytes], accepted: bool
) -> None:
    class Sent(Exception):
        """The first answer is enough."""

    async def send(message: Any) -> None:
        raise Sent(message["type"])

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": path, "headers": list(fields.items())}
    with pytest.raises(Sent, match="websocket.accept" if accepted else "websocket.close"):
        at_once(Monitor(service.reading)(scope, receive, send))


def test_many_pages_leave_room_for_probes(service: Service) -> None:
    async def main() -> None:
        answers: list[str] = []
        left = asyncio.Event()

        async def send(message: Any) -> None:
            answers.append(message["type"])

        def page() -> asyncio.Task[None]:
            events: list[Any] = [{"type": "websocket.disconnect"}, {"type": "websocket.connect"}]

            async def receive() -> Any:
                if len(events) == 1:
                    await left.wait()
                return events.pop()

            scope = {"type": "websocket", "path": "/live", "headers": []}
            return asyncio.create_task(monitor(scope, receive, send))

        monitor = Monitor(service.reading)
        pages = [page() for _ in range(100)]
        await settle()
        assert answers.count("websocket.accept") == 100
        await page()
        assert answers[-1] == "websocket.close"
        left.set()
        await asyncio.gather(*pages)
        await page()
        assert answers.count("websocket.accept") == 101

    asyncio.run(main())
