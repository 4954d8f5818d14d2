"""Messages of the application: what is taken, what is refused, and that the error says which key was wrong."""

from __future__ import annotations

import sys
from enum import IntEnum
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.asgi import fields as response_fields
from asgiserver.asgi.messages import (
    Accept,
    Close,
    EarlyHint,
    ResponseBody,
    ResponseStart,
    SendBytes,
    SendText,
    Trailers,
    message_type,
    parse_http,
    parse_websocket,
)
from asgiserver.errors import ApplicationError, MessageError
from asgiserver.wire.response import head


class CloseCode(IntEnum):
    GOING_AWAY = 1001


def start(**keys: Any) -> ResponseStart:
    reply = parse_http({"type": "http.response.start", "status": 200} | keys)
    assert isinstance(reply, ResponseStart)
    return reply


def fields(*headers: tuple[Any, Any]) -> list[tuple[bytes, bytes]]:
    return start(headers=headers).headers


def http_error(**message: Any) -> str:
    with pytest.raises(MessageError) as caught:
        parse_http(message)
    return str(caught.value)


def start_error(**keys: Any) -> str:
    return http_error(**{"type": "http.response.start", "status": 200} | keys)


def close_error(**keys: Any) -> str:
    """The error that a close has with it, for those that need its code and reason."""
    reply = parse_websocket({"type": "websocket.close"} | keys)
    assert isinstance(reply, Close)
    assert reply[:2] == (1000, "")
    return str(reply.error)


def websocket_error(**message: Any) -> str:
    with pytest.raises(MessageError) as caught:
        parse_websocket(message)
    return str(caught.value)


class TestType:
    @pytest.mark.parametrize(("message", "kind"), [(None, "None"), ("text", "str"), ([("type", "x")], "list")])
    def test_what_is_no_mapping_is_refused(self, message: Any, kind: str) -> None:
        with pytest.raises(MessageError, match=f"a message must be a dict, got {kind}"):
            parse_http(message)

    def test_any_mapping_will_do(self) -> None:
        assert parse_http(MappingProxyType({"type": "http.response.body"})) == ResponseBody(b"", False)

    def test_a_missing_type_is_told_from_a_wrong_one(self) -> None:
        assert http_error(status=200).startswith('a message must have a "type", one of http.response.start')

    @pytest.mark.parametrize("kind", ["http.response.star", "websocket.send", b"http.response.start", 1, None, ["x"]])
    def test_an_unknown_type_names_those_that_are_known(self, kind: Any) -> None:
        text = http_error(type=kind)
        assert "http.response.start, http.response.body" in text
        assert repr(kind) in text

    def test_websocket_types_are_not_http_types(self) -> None:
        text = websocket_error(type="http.response.start", status=200)
        assert "websocket.accept, websocket.send, websocket.close, websocket.http.response.start" in text

    def test_other_scopes_give_their_own_types(self) -> None:
        assert message_type({"type": "a"}, ("a", "b")) == "a"

    def test_an_error_is_the_applications_and_a_value_error(self) -> None:
        with pytest.raises(ApplicationError) as caught:
            parse_http({})
        assert isinstance(caught.value, ValueError)


class TestResponseStart:
    def test_only_a_status_is_needed(self) -> None:
        assert start() == ResponseStart(200, [], None, False, False, [])

    def test_every_key_is_taken(self) -> None:
        reply = start(status=404, headers=[(b"Content-Length", b"5"), (b"connection", b"close")], trailers=True)
        assert reply == ResponseStart(404, [(b"Content-Length", b"5")], 5, True, True, [b"content-length"])

    @pytest.mark.parametrize("status", [200, 599, 999])
    def test_status_within_its_bounds(self, status: int) -> None:
        assert start(status=status).status == status

    def test_a_status_of_an_enum_becomes_a_plain_int(self) -> None:
        assert type(start(status=HTTPStatus.NOT_FOUND).status) is int

    @pytest.mark.parametrize("status", [-1, 0, 99, 1000, 10**100])
    def test_a_status_out_of_bounds_is_refused(self, status: int) -> None:
        assert start_error(status=status).startswith('http.response.start: "status" must be 200 to 999, got')

    @pytest.mark.parametrize("status", [100, 101, 103, 199])
    def test_an_informational_status_is_refused_with_a_hint(self, status: int) -> None:
        assert "informational" in start_error(status=status)

    @pytest.mark.parametrize(
        ("status", "kind"), [("200", "str"), (200.0, "float"), (True, "bool"), (None, "None"), (b"200", "bytes")]
    )
    def test_a_status_of_another_type_is_named(self, status: Any, kind: str) -> None:
        assert start_error(status=status) == f'http.response.start: "status" must be an int, got {kind}'

    def test_a_missing_status_is_told_from_none(self) -> None:
        assert http_error(type="http.response.start") == 'http.response.start: "status" is missing, an int is needed'

    def test_an_unknown_key_is_ignored(self) -> None:
        assert start(reason="Fine") == start()


class TestTrailers:
    def test_every_key_is_taken(self) -> None:
        message = {"type": "http.response.trailers", "headers": [(b"X-Sum", b" 1 ")], "more_trailers": True}
        assert parse_http(message) == Trailers([(b"X-Sum", b"1")], [b"x-sum"], True)
        assert parse_http({"type": "http.response.trailers"}) == Trailers([], [], False)

    @pytest.mark.parametrize("name", [
        b"Content-Length", b"content-type", b"Content-Encoding", b"content-range", b"Host", b"Authorization",
        b"Set-Cookie", b"cache-control", b"Location", b"Trailer", b"WWW-Authenticate", b"age",
    ])  # fmt: skip
    def test_fields_that_are_needed_before_the_content_are_refused(self, name: bytes) -> None:
        text = http_error(type="http.response.trailers", headers=[(b"x", b"1"), (name, b"1")])
        assert text == f"http.response.trailers: header {name.lower()!r} must not be sent in trailers (RFC 9110 §6.5.1)"

    @pytest.mark.parametrize("name", [b"Connection", b"transfer-encoding", b"TE", b"upgrade", b"keep-alive"])
    def test_fields_of_the_connection_are_dropped_as_in_a_head(self, name: bytes) -> None:
        message = {"type": "http.response.trailers", "headers": [(name, b"x"), (b"etag", b"1")]}
        assert parse_http(message) == Trailers([(b"etag", b"1")], [b"etag"], False)

    @pytest.mark.parametrize("headers", [[(b":status", b"1")], [(b"x", b"a\r\nb: c")], [("x", b"")], 5, {b"x": b"1"}])
    def test_they_are_checked_as_all_fields(self, headers: Any) -> None:
        assert http_error(type="http.response.trailers", headers=headers).startswith("http.response.trailers: ")

    def test_a_denial_has_none(self) -> None:
        reply = parse_websocket({"type": "websocket.http.response.start", "status": 403, "trailers": True})
        assert isinstance(reply, ResponseStart)
        assert not reply.trailers


class TestEarlyHint:
    def test_each_link_is_a_field(self) -> None:
        message = {"type": "http.response.early_hint", "links": iter([b"</a>; rel=preload ", b"</b>"])}
        fields = [(b"link", b"</a>; rel=preload"), (b"link", b"</b>")]
        assert parse_http(message) == EarlyHint(fields, [b"link", b"link"])
        assert parse_http(message | {"links": []}) == EarlyHint([], [])

    @pytest.mark.parametrize(("keys", "text"), [
        ({}, '"links" is missing, an iterable of bytes is needed'),
        ({"links": None}, '"links" must be an iterable of bytes, got None'),
        ({"links": b"</a>"}, '"links" must be an iterable of bytes, got bytes'),
        ({"links": ["</a>"]}, 'each of "links" must be bytes, got str'),
        ({"links": [b"\r\nb: c"]}, (
            "the value of header b'link' must not hold control characters other than HTAB (RFC 9110 §5.5), "
            "got b'\\r\\n'"
        )),
    ])  # fmt: skip
    def test_what_is_no_link_is_refused(self, keys: dict[str, Any], text: str) -> None:
        message: dict[str, Any] = {"type": "http.response.early_hint", **keys}
        assert http_error(**message) == f"http.response.early_hint: {text}"


class TestHeaders:
    def test_spelling_order_and_duplicates_are_kept(self) -> None:
        given = [(b"Set-Cookie", b"a=1"), (b"X-B", b"2"), (b"set-cookie", b"a=1"), (b"ETag", b"3")]
        for _ in range(2):
            reply = start(headers=given)
            assert reply.headers == given
            assert reply.names == [b"set-cookie", b"x-b", b"set-cookie", b"etag"]

    def test_none_means_no_headers(self) -> None:
        assert start(headers=None).headers == []

    @pytest.mark.parametrize("make", [list, tuple, iter, lambda pairs: dict(pairs).items()])
    def test_any_iterable_of_pairs_will_do(self, make: Any) -> None:
        pairs = [(b"a", b"1"), (b"b", b"2")]
        assert start(headers=make(pairs)).headers == pairs

    def test_a_pair_may_be_a_list_or_a_generator(self) -> None:
        assert start(headers=[[b"a", b"1"], iter((b"b", b"2"))]).headers == [(b"a", b"1"), (b"b", b"2")]

    def test_the_applications_own_list_is_not_kept(self) -> None:
        given = [(b"a", b"1")]
        reply = start(headers=given)
        given.append((b"b", b"2"))
        assert reply.headers == [(b"a", b"1")]

    @pytest.mark.parametrize(
        ("headers", "kind"), [(5, "int"), ("text", "str"), (b"bytes", "bytes"), ({b"a": b"b"}, "dict")]
    )
    def test_headers_of_another_type_are_named(self, headers: Any, kind: str) -> None:
        assert start_error(headers=headers).endswith(f'"headers" must be an iterable of pairs of bytes, got {kind}')

    @pytest.mark.parametrize("item", [(b"a",), (b"a", b"b", b"c"), b"abc", None, 7])
    def test_what_is_no_pair_is_shown(self, item: Any) -> None:
        assert repr(item) in start_error(headers=[(b"a", b"1"), item])

    def test_an_exception_of_the_applications_own_iterator_is_not_hidden(self) -> None:
        def headers() -> Any:
            yield b"a", b"1"
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            start(headers=headers())

    @pytest.mark.parametrize(("name", "kind"), [("host", "str"), (bytearray(b"a"), "bytearray"), (None, "None")])
    def test_a_name_that_is_not_bytes_is_shown(self, name: Any, kind: str) -> None:
        text = start_error(headers=[(name, b"1")])
        assert text.endswith(f"the name of header {name!r} must be bytes, got {kind}")

    @pytest.mark.parametrize(("value", "kind"), [("text/plain", "str"), (5, "int"), (None, "None")])
    def test_a_value_that_is_not_bytes_names_its_header(self, value: Any, kind: str) -> None:
        text = start_error(headers=[(b"Content-Type", value)])
        assert text == f"http.response.start: the value of header b'Content-Type' must be bytes, got {kind}"

    @pytest.mark.parametrize(
        "name", [b"", b":status", b"a b", b"a:", b" a", b"a\r\n", b"a\0", b"\xe9", b"(a)", b'"a"', b"a/b", b"a\t"]
    )
    def test_a_name_that_is_no_token_is_refused(self, name: bytes) -> None:
        text = start_error(headers=[(name, b"1")])
        assert "must be a token" in text
        assert repr(name) in text

    def test_every_token_character_may_stand_in_a_name(self) -> None:
        reply = start(headers=[(b"!#$%&'*+-.^_`|~09AZaz", b"1")])
        assert reply.headers == [(b"!#$%&'*+-.^_`|~09AZaz", b"1")]
        assert reply.names == [b"!#$%&'*+-.^_`|~09azaz"]

    @pytest.mark.parametrize("value", [b"a\rb", b"a\nb", b"a\r\nset-cookie: b", b"\0", b"a\n", b"\r\n b"])
    def test_a_value_cannot_end_its_line(self, value: bytes) -> None:
        assert "b'x-a' must not hold control characters" in start_error(headers=[(b"x-a", value)])

    @pytest.mark.parametrize("control", [bytes((number,)) for number in (*range(9), *range(10, 32), 127)])
    def test_no_value_has_a_control_character(self, control: bytes) -> None:
        """RFC 9110 §5.5."""
        for value in (control, b"a" + control, control + b"a", b"a" * 5000 + control + b" \t"):
            for name in (b"x-a", b"Set-Cookie", b"connection", b"Upgrade"):
                text = start_error(headers=[(b"b", b"2"), (name, value), (b"c", b"3")])
                assert text == (
                    f"http.response.start: the value of header {name!r} must not hold control characters other than "
                    f"HTAB (RFC 9110 §5.5), got {control!r}"
                )

    def test_every_other_byte_may_stand_in_a_value(self) -> None:
        """RFC 9110 §5.5: HTAB, SP, visible characters, and obs-text for what older servers sent."""
        value = b"a\tb" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
        assert fields((b"x", value), (b"y", b"")) == [(b"x", value), (b"y", b"")]

    def test_error_of_a_value_does_not_show_it(self) -> None:
        """It may be a secret, and the error goes to a log."""
        assert "secret" not in start_error(headers=[(b"set-cookie", b"id=secret\x0b")])

    @pytest.mark.parametrize(("given", "taken"), [(b" \t a b\t ", b"a b"), (b" ", b""), (b"\xff\x80", b"\xff\x80")])
    def test_a_value_loses_the_space_around_it_only(self, given: bytes, taken: bytes) -> None:
        assert fields((b"x", given)) == [(b"x", taken)]

    @pytest.mark.parametrize(
        "name", [b"Connection", b"Keep-Alive", b"Proxy-Connection", b"TE", b"Transfer-Encoding", b"Upgrade", b"upgrade"]
    )
    def test_connection_specific_fields_are_taken_out(self, name: bytes) -> None:
        reply = start(headers=[(b"a", b"1"), (name, b"chunked"), (b"b", b"2")])
        assert reply == ResponseStart(200, [(b"a", b"1"), (b"b", b"2")], None, False, False, [b"a", b"b"])

    @pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, CLOSE", b"upgrade ,close\t"])
    def test_connection_close_is_understood(self, value: bytes) -> None:
        assert start(headers=[(b"Connection", value)]).close

    @pytest.mark.parametrize("value", [b"keep-alive", b"", b"closed", b"not close"])
    def test_other_connection_options_do_not_close(self, value: bytes) -> None:
        assert not start(headers=[(b"connection", value)]).close

    def test_a_later_connection_field_does_not_take_close_back(self) -> None:
        assert start(headers=[(b"connection", b"close"), (b"connection", b"keep-alive")]).close

    def test_only_the_beginning_of_a_long_name_is_shown(self) -> None:
        assert len(start_error(headers=[(b"x\n" * 1000, b"")])) < 250

    @pytest.mark.parametrize("value", [bytearray(b"1"), memoryview(b"1"), memoryview(bytearray(b"1"))])
    def test_a_buffer_that_may_change_is_no_value(self, value: Any) -> None:
        """As ASGI has it: the fields are held until the body comes."""
        assert f"must be bytes, got {type(value).__name__}" in start_error(headers=[(b"x", value)])
        assert f"must be bytes, got {type(value).__name__}" in start_error(headers=[(value, b"x")])

    def test_a_class_derived_from_bytes_becomes_bytes(self) -> None:
        class Text(bytes):
            def strip(self, *_: Any) -> bytes:
                return b"a\r\nb: c"

        ((name, value),) = fields((Text(b"x"), Text(b"1")))
        assert (type(name), type(value), name, value) == (bytes, bytes, b"x", b"1")

    @given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=3))
    def test_no_bytes_get_a_line_end_or_a_colon_through(self, headers: list[tuple[bytes, bytes]]) -> None:
        try:
            taken = fields(*headers)
        except MessageError:
            return
        for name, value in taken:
            assert not set(name) & set(b"\r\n\0: \t")
            assert not set(value) - {9} & {*range(32), 127}
            assert value == value.strip(b" \t")


class TestContentLength:
    @pytest.mark.parametrize(
        ("value", "length"), [(b"0", 0), (b"12", 12), (b" 7 ", 7), (b"18446744073709551615", 2**64 - 1)]
    )
    def test_its_number_is_known_and_the_field_kept(self, value: bytes, length: int) -> None:
        reply = start(headers=[(b"Content-Length", value)])
        assert reply.content_length == length
        assert reply.headers == [(b"Content-Length", value.strip())]

    @pytest.mark.parametrize(
        "value", [b"", b"+5", b"-1", b"5 5", b"5, 5", b"0x5", b"5.0", b"\xb2", b"1_0", b"9" * 5000]
    )
    def test_what_is_no_number_is_refused(self, value: bytes) -> None:
        assert "b'content-length' must be a decimal number" in start_error(headers=[(b"content-length", value)])

    @pytest.mark.parametrize("name", [b"content-length", b"Content-Length", b"CONTENT-LENGTH"])
    def test_its_name_has_no_case(self, name: bytes) -> None:
        assert start(headers=[(name, b"5")]).content_length == 5
        assert "more than one" in start_error(headers=[(b"content-length", b"6"), (name, b"5")])

    @pytest.mark.parametrize("name", [b"content_length", b"content-length-", b"x-content-length"])
    def test_names_that_look_like_it_are_none(self, name: bytes) -> None:
        assert start(headers=[(name, b"5")]).content_length is None

    def test_the_same_twice_is_sent_once(self) -> None:
        reply = start(headers=[(b"content-length", b"5"), (b"Content-Length", b"5")])
        assert reply.headers == [(b"content-length", b"5")]

    def test_two_different_ones_are_refused(self) -> None:
        text = start_error(headers=[(b"content-length", b"0"), (b"content-length", b"6")])
        assert text == "http.response.start: more than one content-length: 0 and 6"


class TestResponseBody:
    def test_without_keys_it_is_the_empty_end(self) -> None:
        assert parse_http({"type": "http.response.body"}) == ResponseBody(b"", False)

    def test_its_keys_are_taken(self) -> None:
        message = {"type": "http.response.body", "body": b"data", "more_body": True}
        assert parse_http(message) == ResponseBody(b"data", True)

    @pytest.mark.parametrize("make", [bytearray, memoryview])
    def test_other_buffers_are_copied(self, make: Any) -> None:
        buffer = bytearray(b"data")
        reply = parse_http({"type": "http.response.body", "body": make(buffer)})
        buffer[:] = b"gone"
        assert reply == ResponseBody(b"data", False)
        assert type(reply[0]) is bytes

    def test_a_released_memoryview_is_the_applications_mistake(self) -> None:
        view = memoryview(b"data")
        view.release()
        assert "released" in http_error(type="http.response.body", body=view)

    @pytest.mark.parametrize(("body", "kind"), [("text", "str"), (None, "None"), (5, "int"), ([b"a"], "list")])
    def test_a_body_of_another_type_is_named(self, body: Any, kind: str) -> None:
        text = http_error(type="http.response.body", body=body)
        assert text == f'http.response.body: "body" must be bytes, got {kind}'

    @pytest.mark.parametrize(("given", "taken"), [(1, True), (0, False), (None, False), ("yes", True)])
    def test_more_body_may_be_anything_true_or_false(self, given: Any, taken: bool) -> None:
        reply = parse_http({"type": "http.response.body", "more_body": given})
        assert reply == ResponseBody(b"", taken)
        assert type(reply[1]) is bool


class TestAccept:
    def test_without_keys(self) -> None:
        assert parse_websocket({"type": "websocket.accept"}) == Accept(None, [], [])

    def test_with_a_subprotocol_and_headers(self) -> None:
        message = {"type": "websocket.accept", "subprotocol": "Chat.v2", "headers": [(b"Set-Cookie", b"a=1")]}
        assert parse_websocket(message) == Accept("Chat.v2", [(b"Set-Cookie", b"a=1")], [b"set-cookie"])

    @pytest.mark.parametrize("subprotocol", ["", "a b", "a,b", "a\r\nb: c", "é", "\udc80", "a\x01", "a\x7f"])
    def test_a_subprotocol_that_is_no_token_is_refused(self, subprotocol: str) -> None:
        text = websocket_error(type="websocket.accept", subprotocol=subprotocol)
        assert text.startswith('websocket.accept: "subprotocol" must be a token')

    @pytest.mark.parametrize(("subprotocol", "kind"), [(b"chat", "bytes"), (5, "int"), (["chat"], "list")])
    def test_a_subprotocol_of_another_type_is_named(self, subprotocol: Any, kind: str) -> None:
        text = websocket_error(type="websocket.accept", subprotocol=subprotocol)
        assert text == f'websocket.accept: "subprotocol" must be a str or None, got {kind}'

    @pytest.mark.parametrize(
        "name", [b"Sec-WebSocket-Accept", b"sec-websocket-protocol", b"sec-websocket-extensions", b"content-length"]
    )
    def test_headers_of_the_handshake_are_refused(self, name: bytes) -> None:
        assert "belongs to the server" in websocket_error(type="websocket.accept", headers=[(name, b"5")])

    def test_connection_specific_fields_are_taken_out(self) -> None:
        message = {"type": "websocket.accept", "headers": [(b"connection", b"close"), (b"upgrade", b"h2c")]}
        assert parse_websocket(message) == Accept(None, [], [])

    def test_headers_are_checked_as_those_of_http(self) -> None:
        for value in (b"1\r\n2", b"\x1b[0m", b"\x7f"):
            text = websocket_error(type="websocket.accept", headers=[(b"a", value)])
            assert text.startswith("websocket.accept: the value of header b'a' must not hold control characters")


class TestSend:
    @pytest.mark.parametrize("text", ["", "hello", "žluťoučký 🐎", "\0"])
    def test_text(self, text: str) -> None:
        assert parse_websocket({"type": "websocket.send", "text": text}) == SendText(text)
        assert parse_websocket({"type": "websocket.send", "text": text, "bytes": None}) == SendText(text)

    @pytest.mark.parametrize("data", [b"", b"\xff\0"])
    def test_bytes(self, data: bytes) -> None:
        assert parse_websocket({"type": "websocket.send", "bytes": data}) == SendBytes(data)
        assert parse_websocket({"type": "websocket.send", "bytes": data, "text": None}) == SendBytes(data)

    def test_other_buffers_are_copied(self) -> None:
        reply = parse_websocket({"type": "websocket.send", "bytes": memoryview(b"abcd")[::2]})
        assert reply == SendBytes(b"ac")
        assert type(reply[0]) is bytes

    @pytest.mark.parametrize("keys", [{}, {"text": None}, {"text": None, "bytes": None}])
    def test_neither_is_refused(self, keys: dict[str, Any]) -> None:
        assert websocket_error(type="websocket.send", **keys) == (
            'websocket.send: one of "bytes" and "text" must be given'
        )

    @pytest.mark.parametrize("keys", [{"text": "", "bytes": b""}, {"text": "a", "bytes": b"a"}])
    def test_both_are_refused_even_when_empty(self, keys: dict[str, Any]) -> None:
        assert "only one" in websocket_error(type="websocket.send", **keys)

    @pytest.mark.parametrize(("keys", "expected"), [
        ({"text": b"a"}, '"text" must be a str, got bytes'),
        ({"text": 0}, '"text" must be a str, got int'),
        ({"bytes": "a"}, '"bytes" must be bytes, got str'),
        ({"bytes": 0}, '"bytes" must be bytes, got int'),
    ])  # fmt: skip
    def test_another_type_is_named(self, keys: dict[str, Any], expected: str) -> None:
        assert websocket_error(type="websocket.send", **keys) == f"websocket.send: {expected}"

    def test_a_lone_surrogate_cannot_be_sent(self) -> None:
        text = websocket_error(type="websocket.send", text="ab\ud800")
        assert text == 'websocket.send: "text" cannot be encoded as UTF-8: surrogates not allowed at character 2'


class TestClose:
    @pytest.mark.parametrize("keys", [{}, {"code": None, "reason": None}, {"code": 1000, "reason": ""}])
    def test_by_default_it_is_normal(self, keys: dict[str, Any]) -> None:
        assert parse_websocket({"type": "websocket.close"} | keys) == Close(1000, "")

    @pytest.mark.parametrize(
        "code", [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999]
    )
    def test_codes_that_an_endpoint_may_send(self, code: int) -> None:
        assert parse_websocket({"type": "websocket.close", "code": code, "reason": "why"}) == Close(code, "why")

    @pytest.mark.parametrize("code", [-1, 0, 99, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536])
    def test_other_codes_are_refused(self, code: int) -> None:
        text = close_error(code=code)
        assert text == f'websocket.close: "code" must be 1000 to 1003, 1007 to 1014, or 3000 to 4999; got {code}'

    def test_a_code_of_an_enum_becomes_a_plain_int(self) -> None:
        reply = parse_websocket({"type": "websocket.close", "code": CloseCode.GOING_AWAY})
        assert reply == Close(1001, "")
        assert type(reply[0]) is int

    @pytest.mark.parametrize(("code", "kind"), [("1000", "str"), (True, "bool"), (1000.0, "float")])
    def test_a_code_of_another_type_is_named(self, code: Any, kind: str) -> None:
        assert close_error(code=code).endswith(f'"code" must be an int, got {kind}')

    @pytest.mark.parametrize(("reason", "kind"), [(b"why", "bytes"), (0, "int")])
    def test_a_reason_of_another_type_is_named(self, reason: Any, kind: str) -> None:
        assert close_error(reason=reason).endswith(f'"reason" must be a str, got {kind}')

    def test_a_reason_with_a_lone_surrogate_is_refused(self) -> None:
        assert '"reason" cannot be encoded' in close_error(reason="\udfff")

    @pytest.mark.parametrize(
        ("reason", "taken"),
        [("a" * 123, "a" * 123), ("a" * 124, "a" * 123), ("a" * 122 + "é", "a" * 122), ("🐎" * 31, "🐎" * 30)],
    )
    def test_a_long_reason_is_cut_at_a_character(self, reason: str, taken: str) -> None:
        assert parse_websocket({"type": "websocket.close", "reason": reason}) == Close(1000, taken)

    @given(st.text(max_size=200))
    def test_a_reason_always_fits_its_frame(self, reason: str) -> None:
        reply = parse_websocket({"type": "websocket.close", "reason": reason})
        assert isinstance(reply, Close)
        assert reason.startswith(reply.reason)
        assert len(reply.reason.encode()) <= 123


class TestDenial:
    def test_its_start_is_that_of_http(self) -> None:
        message = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"Content-Length", b"2")]}
        reply = parse_websocket(message)
        assert type(reply) is ResponseStart
        assert reply == (401, [(b"Content-Length", b"2")], 2, False, False, [b"content-length"])

    def test_its_body_is_that_of_http(self) -> None:
        reply = parse_websocket({"type": "websocket.http.response.body", "body": b"no", "more_body": True})
        assert type(reply) is ResponseBody
        assert reply == (b"no", True)

    def test_its_errors_carry_its_own_type(self) -> None:
        text = websocket_error(type="websocket.http.response.body", body="no")
        assert text == 'websocket.http.response.body: "body" must be bytes, got str'
        text = websocket_error(type="websocket.http.response.start", status=401, headers=[(b"a", b"\x0c")])
        assert text.startswith("websocket.http.response.start: the value of header b'a' must not hold control")


class TestRemembering:
    """Names are remembered, up to a bound; values, which may be secrets, never are."""

    @pytest.fixture(autouse=True)
    def _nothing_is_known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(response_fields, "_NAMES", {})

    @pytest.mark.parametrize("value", [b"text/plain", b" text/plain\t"])
    @pytest.mark.parametrize("kind", [tuple, list])
    def test_the_second_time_gives_what_the_first_gave(self, value: bytes, kind: type[Any]) -> None:
        headers = [kind((b"Content-Type", value))]
        assert [start(headers=headers).headers for _ in range(3)] == [[(b"Content-Type", b"text/plain")]] * 3

    def test_known_name_is_taken_for_nothing_else(self) -> None:
        for _ in range(2):
            assert "must be bytes" in start_error(headers=[("vary", b"*")])
            assert "must be bytes" in start_error(headers=[(b"vary", "*")])
            assert "control" in start_error(headers=[(b"vary", b"*\n")])
            assert start(headers=[(b"vary", b"*")]).names == [b"vary"]

    def test_what_is_kept_is_bounded(self) -> None:
        for number in range(2 * response_fields._MOST_NAMES):
            assert start(headers=[(b"X-%d" % number, b"1")]).names == [b"x-%d" % number]
        assert len(response_fields._NAMES) == response_fields._MOST_NAMES
        response_fields._NAMES.clear()
        assert start(headers=[(b"X" * 70_000, b"1")]).names == [b"x" * 70_000]
        assert response_fields._NAMES == {}

    @pytest.mark.parametrize("status", [200, 302])
    @pytest.mark.parametrize("name", [b"set-cookie", b"Location", b"ETag", b"vary", b"content-type", b"X-Token", b"x"])
    def test_no_value_outlives_its_response(self, name: bytes, status: int) -> None:
        value = b"".join((b"secret", b"-of-", name))
        headers = [(name, value), (b"content-length", b"2")]
        for _ in range(3):
            made = start(status=status, headers=headers)
            assert value in head(made.status, made.headers)
            parse_websocket({"type": "websocket.accept", "headers": headers[:1]})
        del headers, made
        # The test's own reference, and that of the call.
        assert sys.getrefcount(value) == 2
