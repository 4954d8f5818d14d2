"""The opening handshake of RFC 6455 §4.2: who asks for it, who does so rightly, and the answer."""

from __future__ import annotations

import pytest

from asgiserver.asgi.interfaces import Headers
from asgiserver.errors import RequestError
from asgiserver.wire.handshake import (
    Extension,
    Upgrade,
    accept_key,
    check,
    is_upgrade,
    parse_extensions,
    response_headers,
)

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HEADERS = [
    (b"host", b"localhost"), (b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-key", KEY),
    (b"sec-websocket-version", b"13"),
]  # fmt: skip
VERSION = (b"sec-websocket-version", b"13")


def changed(name: bytes, *values: bytes) -> Headers:
    """The fields of a good handshake with these lines of one name instead of its own."""
    return [field for field in HEADERS if field[0] != name] + [(name, value) for value in values]


def refused(headers: Headers = HEADERS, *, method: str = "GET", has_body: bool = False) -> RequestError:
    with pytest.raises(RequestError) as caught:
        check(method, headers, has_body)
    return caught.value


class TestIsUpgrade:
    @pytest.mark.parametrize(("upgrade", "connection"), [
        ([b"websocket"], [b"upgrade"]),
        ([b"WebSocket"], [b"keep-alive, Upgrade"]),
        ([b"h2c, WEBSOCKET"], [b"UPGRADE,x"]),
        ([b"foo", b" websocket\t"], [b"keep-alive", b"\tupgrade "]),
        ([b", websocket,"], [b",, upgrade"]),
    ])  # fmt: skip
    def test_tokens_are_found_in_any_case_list_and_line(self, upgrade: list[bytes], connection: list[bytes]) -> None:
        headers = [(b"upgrade", value) for value in upgrade] + [(b"connection", value) for value in connection]
        assert is_upgrade("GET", "1.1", headers)

    @pytest.mark.parametrize(("name", "values"), [
        (b"upgrade", []),
        (b"upgrade", [b"foo"]),
        (b"upgrade", [b"h2c"]),
        (b"upgrade", [b"websocket/13"]),
        (b"upgrade", [b"websocket x"]),
        (b"upgrade", [b""]),
        (b"connection", []),
        (b"connection", [b"keep-alive"]),
        (b"connection", [b"upgraded"]),
        (b"connection", [b"keep-alive upgrade"]),
    ])  # fmt: skip
    def test_anything_else_is_plain_http(self, name: bytes, values: list[bytes]) -> None:
        assert not is_upgrade("GET", "1.1", changed(name, *values))

    def test_wrong_handshake_is_one_nevertheless(self) -> None:
        headers = [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
        assert is_upgrade("POST", "1.1", headers)

    def test_tunnels_and_other_versions_of_http_cannot_upgrade(self) -> None:
        assert not is_upgrade("CONNECT", "1.1", HEADERS)
        assert not is_upgrade("GET", "2", HEADERS)

    def test_http_1_0_has_none_at_all(self) -> None:
        """RFC 9110 §7.8: a server MUST ignore an Upgrade in an HTTP/1.0 request."""
        assert not is_upgrade("GET", "1.0", HEADERS)


class TestCheck:
    def test_good_handshake(self) -> None:
        assert check("GET", HEADERS, False) == Upgrade(KEY, [], [])

    @pytest.mark.parametrize(
        "values",
        [(), (b"",), (b"8",), (b"12",), (b"14",), (b"013",), (b"13, 8",), (b"8, 13",), (b"13", b"13"), (b"13", b"8")],
    )
    def test_other_versions_are_told_the_right_one(self, values: tuple[bytes, ...]) -> None:
        error = refused(changed(b"sec-websocket-version", *values))
        assert error.status == 426
        assert error.headers == (VERSION, (b"upgrade", b"websocket"))

    @pytest.mark.parametrize("values", [
        (), (b"",), (KEY, KEY), (KEY[:-1],), (KEY[:-2],), (KEY + b"=",), (KEY + b"AAAA",),
        (b"dGhlIHNhbXBsZSBub25jZ===",), (b"dGhlIHNhbXBsZSBub25jZQ= =",), (b"dGhlIHNhbXBsZSBub25j",),
        (b"dGhlIHNhbXBsZSBub25jZSBub25j",), (b"!" + KEY[1:],), (b"\xff" + KEY[1:],), (b"-_" + KEY[2:],),
        (KEY[:10] + b"," + KEY[10:],),
    ])  # fmt: skip
    def test_key_must_be_sixteen_bytes_in_base64(self, values: tuple[bytes, ...]) -> None:
        assert refused(changed(b"sec-websocket-key", *values)).status == 400

    def test_key_is_kept_as_sent(self) -> None:
        # Bits beyond the sixteenth byte may be set; the answer is computed from what was sent.
        key = KEY[:-3] + b"R=="
        assert check("GET", changed(b"sec-websocket-key", b" " + key + b"\t"), False).key == key

    @pytest.mark.parametrize("method", ["POST", "HEAD", "get", "OPTIONS"])
    def test_method_must_be_get(self, method: str) -> None:
        assert refused(method=method).status == 400

    def test_body_is_refused(self) -> None:
        assert refused(has_body=True).status == 400

    @pytest.mark.parametrize(("values", "expected"), [
        ((b"chat",), ["chat"]),
        ((b"chat, super.chat",), ["chat", "super.chat"]),
        ((b" chat,\tx ", b"y,,"), ["chat", "x", "y"]),
        ((b"",), []),
        ((b"Chat, chat, %63hat",), ["Chat", "chat", "%63hat"]),
        ((b"!#$%&'*+-.^_`|~09AZaz",), ["!#$%&'*+-.^_`|~09AZaz"]),
    ])  # fmt: skip
    def test_subprotocols_of_all_lines_in_order(self, values: tuple[bytes, ...], expected: list[str]) -> None:
        assert check("GET", changed(b"sec-websocket-protocol", *values), False).subprotocols == expected

    @pytest.mark.parametrize("values", [
        (b"a b",), (b"ch\xc3\xa4t",), (b"\xff",), (b"chat\x7f",), (b'"chat"',), (b"a/b",), (b"a;b",), (b"chat\x0b",),
        (b"chat\x85",), (b"chat, chat",), (b"chat", b"x, chat"),
    ])  # fmt: skip
    def test_subprotocols_must_be_different_tokens(self, values: tuple[bytes, ...]) -> None:
        assert refused(changed(b"sec-websocket-protocol", *values)).status == 400

    def test_extensions_of_all_lines_are_joined(self) -> None:
        headers = changed(b"sec-websocket-extensions", b"a; x=1", b"b")
        assert check("GET", headers, False).extensions == [Extension("a", [("x", "1")]), Extension("b", [])]

    def test_malformed_extensions_are_refused_whether_or_not_any_is_used(self) -> None:
        assert refused(changed(b"sec-websocket-extensions", b"a;")).status == 400


class TestExtendedConnect:
    """RFC 8441 §5: as over HTTP/1.1, but for the fields that HTTP/2 does not have or need."""

    HEADERS = [(b"host", b"localhost"), VERSION]

    @pytest.mark.parametrize("has_body", [True, False])
    def test_neither_key_nor_upgrade_nor_connection_is_needed(self, has_body: bool) -> None:
        assert check("CONNECT", self.HEADERS, has_body) == Upgrade(None, [], [])

    def test_a_key_means_nothing(self) -> None:
        assert check("CONNECT", [*self.HEADERS, (b"sec-websocket-key", b"x")], False).key is None

    def test_subprotocols_and_extensions_are_those_of_any_handshake(self) -> None:
        offers = [(b"sec-websocket-protocol", b"chat, x"), (b"sec-websocket-extensions", b"permessage-deflate")]
        upgrade = check("CONNECT", [*self.HEADERS, *offers], True)
        assert upgrade == Upgrade(None, ["chat", "x"], [Extension("permessage-deflate", [])])
        assert response_headers(upgrade, "x", "permessage-deflate") == [
            (b"sec-websocket-protocol", b"x"), (b"sec-websocket-extensions", b"permessage-deflate"),
        ]  # fmt: skip
        assert response_headers(upgrade, None, "") == []

    @pytest.mark.parametrize("values", [(), (b"8",), (b"13", b"13")])
    def test_other_versions_are_told_the_right_one_without_an_upgrade(self, values: tuple[bytes, ...]) -> None:
        error = refused([(b"sec-websocket-version", value) for value in values], method="CONNECT")
        assert (error.status, error.headers) == (400, (VERSION,))

    @pytest.mark.parametrize("field", [
        (b"content-length", b"0"), (b"content-length", b"3"), (b"sec-websocket-protocol", b"a, a"),
        (b"sec-websocket-extensions", b"a;"),
    ])  # fmt: skip
    def test_what_is_wrong_is_refused(self, field: tuple[bytes, bytes]) -> None:
        assert refused([*self.HEADERS, field], method="CONNECT").status == 400


class TestExtensions:
    @pytest.mark.parametrize(("value", "expected"), [
        (b"", []),
        (b" ,\t, ", []),
        (b"a", [Extension("a", [])]),
        (b"A-b , c", [Extension("a-b", []), Extension("c", [])]),
        (b"a;x;Y=1", [Extension("a", [("x", None), ("y", "1")])]),
        (b' a ; x = "Q" ; y=z ,, b', [Extension("a", [("x", "Q"), ("y", "z")]), Extension("b", [])]),
        (b"a;x;x=1", [Extension("a", [("x", None), ("x", "1")])]),
    ])  # fmt: skip
    def test_names_and_parameters_are_told_apart(self, value: bytes, expected: list[Extension]) -> None:
        assert parse_extensions(value) == expected

    @pytest.mark.parametrize("value", [
        b"a;", b";a", b"a;;b", b"a;=1", b"a;x=", b'a;x="', b'a;x="1', b'a;x=1"', b'a;x=""', b'a;x="a b"', b'a;x="a,b"',
        b"a b", b"a;x y", b"a;x=1=2", b"=", b"a\xff", b'"a"', b"a, b;", b"a\x00", b"a\x0b,b", b"a\r\n,b",
    ])  # fmt: skip
    def test_malformed_value_is_refused(self, value: bytes) -> None:
        with pytest.raises(RequestError) as caught:
            parse_extensions(value)
        assert caught.value.status == 400

    @pytest.mark.parametrize("filling", [b",", b"a,", b" , ", b"a;x,", b"a;x;y,"])
    def test_elements_and_parameters_are_bounded_empty_ones_among_them(self, filling: bytes) -> None:
        separators = filling.count(b",") + filling.count(b";")
        parse_extensions(filling * (100 // separators))
        with pytest.raises(RequestError, match="too many extensions") as caught:
            parse_extensions(filling * (100 // separators + 1))
        assert caught.value.status == 400

    def test_long_value_is_parsed_in_time(self) -> None:
        with pytest.raises(RequestError):
            parse_extensions(b"a" + b" " * 60_000 + b"!x " * 1000)


class TestResponse:
    def test_accept_is_the_example_of_the_rfc(self) -> None:
        assert accept_key(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

    def test_fields_without_options(self) -> None:
        assert response_headers(Upgrade(KEY, ["chat"], [Extension("x", [])]), None, "") == [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ]

    def test_subprotocol_and_extensions_are_named_when_chosen(self) -> None:
        assert response_headers(Upgrade(KEY, ["chat"], []), "chat", "permessage-deflate")[3:] == [
            (b"sec-websocket-protocol", b"chat"),
            (b"sec-websocket-extensions", b"permessage-deflate"),
        ]
