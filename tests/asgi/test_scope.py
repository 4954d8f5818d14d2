"""From a request to the application's scope."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.asgi.forwarded import Forwarding
from asgiserver.asgi.interfaces import Scope
from asgiserver.asgi.scope import TLS, Addresses, Request, ScopeBuilder, for_application, replace_host, unmapped
from asgiserver.settings import Settings
from tests.fakes import CLIENT, SERVER

ADDRESSES = Addresses(CLIENT, SERVER, secure=False)


def scope_of(target: bytes = b"/", headers: list[tuple[bytes, bytes]] | None = None, **builder: Any) -> Scope:
    made = ScopeBuilder(builder.get("root_path", ""), builder.get("forwarding"), builder.get("state"))
    return for_application(made.http(Request("GET", target, headers or []), builder.get("addresses", ADDRESSES)))


class TestHTTP:
    def test_every_key_has_its_value(self) -> None:
        request = Request("POST", b"/a%20b?c=d", [(b"host", b"x")], http_version="1.0")
        assert ScopeBuilder("/mount", None, None).http(request, ADDRESSES) == {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.0",
            "method": "POST",
            "scheme": "http",
            "path": "/mount/a b",
            "raw_path": b"/mount/a%20b",
            "query_string": b"c=d",
            "root_path": "/mount",
            "headers": [(b"host", b"x")],
            "client": CLIENT,
            "server": list(SERVER),
            "extensions": {"http.response.pathsend": {}, "http.response.zerocopysend": {}},
        }

    def test_every_value_has_the_type_that_asgi_names(self) -> None:
        scope = scope_of(b"/?a", [(b"host", b"x")])
        types = {
            "type": str, "asgi": dict, "http_version": str, "method": str, "scheme": str, "path": str,
            "raw_path": bytes, "query_string": bytes, "root_path": str, "headers": list, "client": list,
            "server": list, "extensions": dict,
        }
        assert {key: type(value) for key, value in scope.items()} == types
        assert [type(part) for part in (*scope["client"], *scope["server"])] == [str, int, str, int]
        assert all(type(part) is bytes for field in scope["headers"] for part in field)

    def test_tls_makes_https(self) -> None:
        assert scope_of(addresses=Addresses(CLIENT, SERVER, secure=True))["scheme"] == "https"

    def test_unix_socket_has_no_client_and_a_path_as_server(self) -> None:
        scope = scope_of(addresses=Addresses(None, ("/run/web.sock", None), secure=False))
        assert scope["client"] is None
        assert scope["server"] == ["/run/web.sock", None]

    def test_unnamed_server_is_none(self) -> None:
        assert scope_of(addresses=Addresses(None, None, secure=False))["server"] is None

    def test_ipv6_addresses_are_given_as_they_are(self) -> None:
        scope = scope_of(addresses=Addresses(("2001:db8::1", 5), ("::1", 8000), secure=False))
        assert (scope["client"], scope["server"]) == (["2001:db8::1", 5], ["::1", 8000])


class TestTarget:
    @pytest.mark.parametrize(
        ("target", "path", "raw_path", "query"),
        [
            (b"/a+b?c+d=%20&e", "/a+b", b"/a+b", b"c+d=%20&e"),
            (b"/a?", "/a", b"/a", b""),
            (b"/a?b?c", "/a", b"/a", b"b?c"),
            (b"/foo%2Fbar", "/foo/bar", b"/foo%2Fbar", b""),
            (b"/%C3%A9%e2%98%83", "/\xe9\u2603", b"/%C3%A9%e2%98%83", b""),
            (b"/%ff%FE", "/\ufffd\ufffd", b"/%ff%FE", b""),
            (b"/a%3Fb?c", "/a?b", b"/a%3Fb", b"c"),
            (b"/a%23b", "/a#b", b"/a%23b", b""),
            (b"/100%", "/100%", b"/100%", b""),
            (b"/%zz%4", "/%zz%4", b"/%zz%4", b""),
            (b"/%00", "/\0", b"/%00", b""),
            (b"//a/../b;c", "//a/../b;c", b"//a/../b;c", b""),
            (b"*", "*", b"*", b""),
        ],
    )
    def test_path_is_decoded_once_and_raw_path_and_query_are_not(
        self, target: bytes, path: str, raw_path: bytes, query: bytes
    ) -> None:
        scope = scope_of(target)
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw_path, query)

    @given(st.text(max_size=40).filter(lambda text: text.isprintable() or text == ""))
    def test_any_path_comes_back_from_its_encoding(self, text: str) -> None:
        encoded = "".join(f"%{byte:02x}" for byte in text.encode())
        assert scope_of(b"/" + encoded.encode())["path"] == "/" + text

    @pytest.mark.parametrize(
        ("root_path", "target", "path", "raw_path"),
        [
            # The proxy keeps the prefix.
            ("/mount", b"/mount/page", "/mount/page", b"/mount/page"),
            ("/mount", b"/mount", "/mount", b"/mount"),
            ("/mount", b"/mount/", "/mount/", b"/mount/"),
            ("/mount", b"/%6Dount/a%2Fb", "/mount/a/b", b"/%6Dount/a%2Fb"),
            ("/mount", b"/mount%2Fpage", "/mount/page", b"/mount%2Fpage"),
            ("/a/b", b"/a/b/c?/a", "/a/b/c", b"/a/b/c"),
            # It strips the prefix.
            ("/mount", b"/page", "/mount/page", b"/mount/page"),
            ("/mount", b"/", "/mount/", b"/mount/"),
            ("/mount", b"/?/mount/", "/mount/", b"/mount/"),
            ("/mount", b"/mountain", "/mount/mountain", b"/mount/mountain"),
            ("/mount", b"/Mount/page", "/mount/Mount/page", b"/mount/Mount/page"),
            ("/mount", b"//mount/page", "/mount//mount/page", b"/mount//mount/page"),
            ("/mount", b"/a%2Fb", "/mount/a/b", b"/mount/a%2Fb"),
            ("/a/b", b"/a/c", "/a/b/a/c", b"/a/b/a/c"),
            # What the setting has decoded is encoded in raw_path.
            ("/caf\xe9 1?", b"/x", "/caf\xe9 1?/x", b"/caf%C3%A9%201%3F/x"),
            ("/caf\xe9 1?", b"/caf%c3%a9%201%3f/x", "/caf\xe9 1?/x", b"/caf%c3%a9%201%3f/x"),
            ("/100%", b"/x", "/100%/x", b"/100%25/x"),
            ("/a+b;c=d,e:f@g!", b"/x", "/a+b;c=d,e:f@g!/x", b"/a+b;c=d,e:f@g!/x"),
            # RFC 9112 §3.2.4: that is no path.
            ("/mount", b"*", "*", b"*"),
            ("", b"/page", "/page", b"/page"),
        ],
    )
    def test_the_path_begins_with_the_root_path(
        self, root_path: str, target: bytes, path: str, raw_path: bytes
    ) -> None:
        scope = scope_of(target, root_path=root_path)
        assert (scope["root_path"], scope["path"], scope["raw_path"]) == (root_path, path, raw_path)
        websocket = ScopeBuilder(root_path, None, None).websocket(Request("GET", target, []), ADDRESSES, [])
        assert (websocket["root_path"], websocket["path"], websocket["raw_path"]) == (root_path, path, raw_path)

    @pytest.mark.parametrize("name", [b"daphne-root-path", b"script-name", b"script_name", b"x-forwarded-prefix"])
    def test_no_field_of_the_clients_sets_the_root_path(self, name: bytes) -> None:
        assert scope_of(b"/", [(name, b"/evil")])["root_path"] == ""


class TestHeaders:
    def test_order_and_duplicates_are_kept(self) -> None:
        headers = [(b"cookie", b"a"), (b"host", b"x"), (b"cookie", b"b"), (b"cookie", b"a")]
        assert scope_of(b"/", headers)["headers"] == headers

    def test_latin_1_values_stay_bytes(self) -> None:
        assert scope_of(b"/", [(b"x", b"\xe9")])["headers"] == [(b"x", b"\xe9")]

    def test_host_is_replaced_in_its_place_or_becomes_the_first(self) -> None:
        headers = [(b"a", b"1"), (b"host", b"old"), (b"b", b"2")]
        assert replace_host(headers, b"new") == [(b"a", b"1"), (b"host", b"new"), (b"b", b"2")]
        assert replace_host(headers[::2], b"new") == [(b"host", b"new"), (b"a", b"1"), (b"b", b"2")]
        assert headers[1] == (b"host", b"old")


class TestForwarding:
    HEADERS = [(b"host", b"inside"), (b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-proto", b"https")]

    def test_trusted_proxy_tells_client_and_scheme(self) -> None:
        forwarding = Forwarding(Settings(proxy_headers=True, forwarded_allow_ips=("192.0.2.0/24",)))
        scope = scope_of(b"/", self.HEADERS, forwarding=forwarding)
        assert (scope["client"], scope["scheme"]) == (["203.0.113.9", 0], "https")
        websocket = ScopeBuilder("", forwarding, None).websocket(Request("GET", b"/", self.HEADERS), ADDRESSES, [])
        assert (websocket["client"], websocket["scheme"]) == (("203.0.113.9", 0), "wss")

    def test_other_peers_are_not_believed(self) -> None:
        forwarding = Forwarding(Settings(proxy_headers=True))
        scope = scope_of(b"/", self.HEADERS, forwarding=forwarding)
        assert (scope["client"], scope["scheme"]) == (list(CLIENT), "http")

    def test_nobody_is_believed_by_default(self) -> None:
        scope = scope_of(b"/", self.HEADERS)
        assert (scope["client"], scope["scheme"]) == (list(CLIENT), "http")


class TestPROXY:
    """Fields beside a PROXY header."""

    PROXY = ("10.0.0.1", 5)

    @pytest.mark.parametrize(("proxy", "secure"), [(PROXY, True), (("192.0.2.1", 5), False), (None, False)])
    def test_the_machine_that_has_connected_must_be_trusted(self, proxy: Any, secure: bool) -> None:
        forwarding = Forwarding(Settings(proxy_headers=True, forwarded_allow_ips=("10.0.0.1",)))
        addresses = Addresses(CLIENT, SERVER, False, announced=True, proxy=proxy)
        fields = [(b"x-forwarded-proto", b"https")]
        scope = scope_of(b"/", fields, forwarding=forwarding, addresses=addresses)
        assert (scope["client"], scope["scheme"]) == (list(CLIENT), "https" if secure else "http")


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:0:192.0.2.7", "::ffff:0:192.0.2.7"),
        ("::192.0.2.7", "::192.0.2.7"),
        ("::ffff:1:2:3", "::ffff:1:2:3"),
        ("fe80::1%eth0.5", "fe80::1%eth0.5"),
        ("::1", "::1"),
    ],
)
def test_an_ipv4_mapped_address_is_one_of_ipv4(host: str, plain: str) -> None:
    assert unmapped(host) == plain


class TestState:
    def test_each_scope_has_a_shallow_copy_of_its_own(self) -> None:
        pool: list[int] = []
        builder = ScopeBuilder("", None, {"pool": pool})
        first, second = (builder.http(Request("GET", b"/", []), ADDRESSES) for _ in range(2))
        first["state"]["user"] = 1
        assert second["state"] == {"pool": []}
        assert second["state"]["pool"] is pool

    def test_without_lifespan_there_is_no_state(self) -> None:
        assert "state" not in scope_of()

    def test_nothing_else_is_shared_between_scopes(self) -> None:
        builder = ScopeBuilder("", None, None)
        requests = [Request("GET", b"/", [(b"host", b"x")]) for _ in range(2)]
        first, second = (for_application(builder.http(request, ADDRESSES)) for request in requests)
        for key in ("asgi", "headers", "client", "server", "extensions"):
            assert first[key] is not second[key], key

    def test_what_is_written_into_a_scope_is_in_no_other(self) -> None:
        """However deep, but for the state, of which ASGI wants a shallow copy."""

        def mark(value: Any) -> None:
            if isinstance(value, dict):
                for inner in [*value.values()]:
                    mark(inner)
                value["mark"] = 1
            elif isinstance(value, list):
                value.append("mark")

        builder = ScopeBuilder("", None, None)
        request = Request("GET", b"/", [], trailers=True, early_hints=True)
        addresses = ADDRESSES._replace(tls=TLS(None, ("x",), None, None, None, None))
        for make in (builder.http, lambda *given: builder.websocket(*given, [])):
            clean, marked = (make(request._replace(headers=[]), addresses) for _ in range(2))
            expected = copy.deepcopy(clean)
            mark(marked)
            assert clean == expected == make(request._replace(headers=[]), addresses)


class TestExtensions:
    FILES = {"http.response.pathsend": {}, "http.response.zerocopysend": {}}

    @pytest.mark.parametrize(("keys", "names"), [
        ({}, []),
        ({"trailers": True}, ["http.response.trailers"]),
        ({"early_hints": True}, ["http.response.early_hint"]),
        ({"trailers": True, "early_hints": True}, ["http.response.trailers", "http.response.early_hint"]),
    ])  # fmt: skip
    def test_what_the_peer_takes_is_announced(self, keys: dict[str, bool], names: list[str]) -> None:
        builder = ScopeBuilder("", None, None)
        request = Request("GET", b"/", [], **keys)  # type: ignore[arg-type]
        assert builder.http(request, ADDRESSES)["extensions"] == self.FILES | {name: {} for name in names}
        assert builder.websocket(request, ADDRESSES, [])["extensions"] == {"websocket.http.response": {}}

    def test_tls_is_told_where_it_ends_here(self) -> None:
        builder, request = ScopeBuilder("", None, None), Request("GET", b"/", [])
        addresses = ADDRESSES._replace(secure=True, tls=TLS("a", ("b", "c"), "CN=x", None, 0x0304, 0x1301))
        for scope in (builder.http(request, addresses), builder.websocket(request, addresses, [])):
            assert scope["extensions"].pop("tls") == {
                "server_cert": "a", "client_cert_chain": ("b", "c"), "client_cert_name": "CN=x",
                "client_cert_error": None, "tls_version": 0x0304, "cipher_suite": 0x1301,
            }  # fmt: skip
        # A proxy that has ended TLS itself.
        assert "tls" not in builder.http(request, ADDRESSES._replace(secure=True))["extensions"]


class TestWebSocket:
    @pytest.mark.parametrize(("secure", "scheme"), [(False, "ws"), (True, "wss")])
    def test_every_key_has_its_value(self, secure: bool, scheme: str) -> None:
        request = Request("GET", b"/chat%21?a=b", [(b"origin", b"null")], upgrade=True)
        addresses = Addresses(CLIENT, SERVER, secure)
        assert ScopeBuilder("/mount", None, {}).websocket(request, addresses, ["a", "b"]) == {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "scheme": scheme,
            "path": "/mount/chat!",
            "raw_path": b"/mount/chat%21",
            "query_string": b"a=b",
            "root_path": "/mount",
            "headers": [(b"origin", b"null")],
            "client": CLIENT,
            "server": list(SERVER),
            "subprotocols": ["a", "b"],
            "extensions": {"websocket.http.response": {}},
            "state": {},
        }


@pytest.mark.parametrize(("client", "text"), [(("192.0.2.7", 4711), "192.0.2.7:4711"), (None, "a unix socket's peer")])
def test_the_log_names_a_client_as_people_write_it(client: tuple[str, int] | None, text: str) -> None:
    assert Addresses(client, SERVER, secure=False).peer == text
