"""Where a request without TLS is sent on to."""

from __future__ import annotations

from typing import Any

import pytest

from asgiserver.asgi.scope import Addresses, Request
from asgiserver.errors import RequestError
from asgiserver.wire.redirect import RedirectingHub, location


@pytest.mark.parametrize(
    ("host", "target", "plain", "secure", "expected"),
    [
        (b"example.org", b"/a?b=%20c", 80, 443, b"https://example.org/a?b=%20c"),
        (b"example.org:80", b"/", 80, 443, b"https://example.org/"),
        (b"example.org:", b"/", 80, 443, b"https://example.org/"),
        # As it is: the client has come to this machine's own port.
        (b"localhost:8080", b"/", 8080, 8443, b"https://localhost:8443/"),
        (b"example.org", b"/", 80, 8443, b"https://example.org:8443/"),
        (b"[::1]:8080", b"/", 8080, 8443, b"https://[::1]:8443/"),
        (b"[::1]", b"/", 80, 443, b"https://[::1]/"),
        # Mapped: the ports that clients see are not these.
        (b"example.org", b"/", 8080, 8443, b"https://example.org/"),
        (b"example.org:8000", b"/", 8080, 8443, b"https://example.org/"),
        (b"example.org", b"/", None, 8443, b"https://example.org/"),
        # The target is never taken for a host.
        (b"example.org", b"//elsewhere.org/", 80, 443, b"https://example.org//elsewhere.org/"),
        (b"example.org", b"*", 80, 443, b"https://example.org/"),
        (b"", b"/", 80, 443, None),
        (b":80", b"/", 80, 443, None),
        (b"a:" + b"9" * 5000, b"/", 80, 443, None),
    ],
)
def test_location(host: bytes, target: bytes, plain: int | None, secure: int, expected: bytes | None) -> None:
    assert location(host, target, plain, secure) == expected


class Hub:
    stopping = False


def answer(headers: list[tuple[bytes, bytes]], addresses: Addresses) -> RequestError:
    stream: Any = None
    hub: Any = Hub()
    with pytest.raises(RequestError) as caught:
        RedirectingHub(hub, 8443).open_exchange(Request("GET", b"/a", headers), stream, addresses)
    return caught.value


def test_a_request_is_refused_with_the_address_to_ask_for() -> None:
    headers = [(b"accept", b"*/*"), (b"host", b"localhost:8080")]
    error = answer(headers, Addresses(("127.0.0.1", 4711), ("127.0.0.1", 8080), secure=False))
    assert (error.status, error.headers) == (308, ((b"location", b"https://localhost:8443/a"),))


def test_one_that_names_no_host_cannot_be_sent_on() -> None:
    assert answer([], Addresses(None, None, secure=False)).status == 400


def test_all_else_is_the_servers_own() -> None:
    hub: Any = Hub()
    redirecting: Any = RedirectingHub(hub, 8443)
    hub.stopping = True
    assert redirecting.stopping
