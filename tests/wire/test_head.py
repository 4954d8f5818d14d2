"""What passes as a request's head: the raw bytes, and what a parser made of them."""

from __future__ import annotations

import pytest

from asgiserver.asgi.scope import CHUNKED, Request
from asgiserver.errors import RequestError
from asgiserver.wire.head import (
    check_fields,
    check_framing,
    check_head,
    check_lines,
    check_target_size,
    request,
    tokens,
)

HOST = (b"host", b"example.com")
Fields = list[tuple[bytes, bytes]]


def status_of_bytes(head: bytes) -> int:
    """200 when the raw head is allowed, else the status of the refusal."""
    try:
        check_head(head, 100)
        check_framing(head)
        # A line each for what a strict parser makes of it: none for what continues the one before.
        lines = head.split(b"\r\n")[1:-2]
        check_lines(head, [(line, b"") for line in lines if line[:1] not in (b" ", b"\t")])
    except RequestError as error:
        return error.status
    return 200


def refusal(method: bytes, target: bytes, headers: Fields, version: str = "1.1") -> int:
    with pytest.raises(RequestError) as caught:
        request(method, target, headers, version)
    return caught.value.status


def made(
    headers: Fields | None = None, *, method: bytes = b"GET", target: bytes = b"/", version: str = "1.1"
) -> Request:
    return request(method, target, [HOST, *(headers or [])], version)


class TestBytes:
    HEAD = b"GET / HTTP/1.1\r\nhost: x\r\nx: %b\r\n\r\n"

    @pytest.mark.parametrize("octet", range(256))
    def test_every_octet_in_a_value_is_allowed_or_refused(self, octet: int) -> None:
        allowed = octet == 9 or 0x20 <= octet <= 0x7E or 0x80 <= octet != 0x85
        assert status_of_bytes(self.HEAD % bytes([ord("a"), octet, ord("b")])) == (200 if allowed else 400)

    @pytest.mark.parametrize("lines", [
        b"GET / HTTP/1.1\nhost: x\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\rx: y\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\n\nx: y\r\n\r\n",
    ])  # fmt: skip
    def test_line_ends_are_crlf_only(self, lines: bytes) -> None:
        assert status_of_bytes(lines) == 400

    @pytest.mark.parametrize("fold", [b" ", b"\t"])
    def test_folded_lines_are_refused(self, fold: bytes) -> None:
        assert status_of_bytes(self.HEAD % (b"a\r\n" + fold + b"b")) == 400

    @pytest.mark.parametrize(("line", "status"), [
        (b"GET / HTTP/1.1", 200), (b"GET / HTTP/1.0", 200), (b"GET / HTTP/1.2", 200), (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/3.7", 505), (b"PRI * HTTP/2.0", 505), (b"GET / HTTP/2", 505), (b"GET / HTTP/1.10", 505),
        (b"GET / HTTP/11.1", 505), (b"GET / HTTP/0.9", 505), (b"GET / http/1.1", 400), (b"GET / HTTP/", 400),
        (b"GET / HTTP/1.1x", 400), (b"GET / HTTPS/1.1", 400), (b"GET /", 400), (b"GET", 400), (b"GET  / HTTP/1.1", 400),
        (b"GET /  HTTP/1.1", 400), (b"GET / HTTP/1.1 ", 400), (b"GET /a b HTTP/1.1", 400), (b"GET\t/\tHTTP/1.1", 400),
    ])  # fmt: skip
    def test_request_line(self, line: bytes, status: int) -> None:
        assert status_of_bytes(line + b"\r\nhost: x\r\n\r\n") == status

    @pytest.mark.parametrize("second", [b"content-length", b"Content-Length", b"CONTENT-LENGTH"])
    def test_second_length_is_refused_even_when_it_is_the_same(self, second: bytes) -> None:
        assert status_of_bytes(b"PUT / HTTP/1.1\r\nContent-Length: 5\r\n" + second + b": 5\r\n\r\n") == 400

    def test_field_that_only_ends_like_a_length_does_not_count(self) -> None:
        assert status_of_bytes(b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nx-content-length: 6\r\n\r\n") == 200

    def test_trailers_are_held_to_the_same(self) -> None:
        check_fields(b"\r\nx: y\r\n")
        for line in (b" x: y", b"x: \0", b"x: \x85", b"x: a\rb"):
            with pytest.raises(RequestError):
                check_fields(b"\r\n" + line + b"\r\n")


class TestHost:
    @pytest.mark.parametrize(
        "host",
        [b"a", b"x.com:8000", b"127.0.0.1", b"[::1]", b"[2001:db8::1]:80", b"a-b_c.d", b"a%20b", b"a,b", b"", b"a:"],
    )
    def test_valid_authority_is_passed_on(self, host: bytes) -> None:
        assert request(b"GET", b"/", [(b"host", host)], "1.1").headers == [(b"host", host)]

    @pytest.mark.parametrize(
        "host",
        [b"a b", b"a/b", b"a@b", b"a?b", b"a#b", b"a\\b", b'a"', b"<a>", b"a:8:9", b"a:http", b"::1", b"[::1", b"\xe9"],
    )
    def test_illegal_characters_are_refused(self, host: bytes) -> None:
        assert refusal(b"GET", b"/", [(b"host", host)]) == 400

    def test_1_1_needs_one_and_1_0_does_not(self) -> None:
        assert refusal(b"GET", b"/", []) == 400
        assert request(b"GET", b"/", [], "1.0").headers == []

    @pytest.mark.parametrize("version", ["1.0", "1.1"])
    def test_two_are_refused_even_when_they_are_the_same(self, version: str) -> None:
        assert refusal(b"GET", b"/", [HOST, HOST], version) == 400


class TestMethod:
    @pytest.mark.parametrize("method", [b"GET", b"PROPFIND", b"M-SEARCH", b"X!"])
    def test_any_upper_case_token_is_passed_on(self, method: bytes) -> None:
        assert made(method=method).method == method.decode()

    @pytest.mark.parametrize("method", [b"get", b"Get", b"!"])
    def test_others_are_refused(self, method: bytes) -> None:
        assert refusal(method, b"/", [HOST]) == 400

    def test_connect_is_not_implemented(self) -> None:
        assert refusal(b"CONNECT", b"example.com:443", [HOST]) == 501


class TestTarget:
    @pytest.mark.parametrize("target", [b"/", b"/a?b", b"//a", b"/%", b"/a:b@c", b"/?http://x/"])
    def test_origin_form_stays(self, target: bytes) -> None:
        assert made(target=target).target == target

    @pytest.mark.parametrize(("target", "path"), [
        (b"http://example.com", b"/"),
        (b"http://example.com/", b"/"),
        (b"http://example.com/a/b?c", b"/a/b?c"),
        (b"http://example.com?c", b"/?c"),
        (b"HTTPS://example.com/a", b"/a"),
        (b"http://example.com//a", b"//a"),
    ])  # fmt: skip
    def test_absolute_form_gives_the_path_of_the_url(self, target: bytes, path: bytes) -> None:
        assert made(target=target).target == path

    def test_authority_of_the_absolute_form_replaces_the_host_in_its_place(self) -> None:
        """RFC 9112 §3.2.2."""
        read = request(b"GET", b"http://other:81/a", [(b"a", b"1"), HOST, (b"b", b"2")], "1.1")
        assert read.headers == [(b"a", b"1"), (b"host", b"other:81"), (b"b", b"2")]
        assert request(b"GET", b"http://other/", [], "1.0").headers == [(b"host", b"other")]

    def test_options_may_ask_for_the_whole_server(self) -> None:
        assert made(method=b"OPTIONS", target=b"*").target == b"*"

    @pytest.mark.parametrize(
        "target",
        [b"*", b"a", b"", b"x:80", b"ftp://x/", b"http:///a", b"http://u:p@x/", b"http:/a", b"?a", b"http://x y/"],
    )
    def test_other_forms_are_refused(self, target: bytes) -> None:
        assert refusal(b"GET", target, [HOST]) == 400

    @pytest.mark.parametrize("target", [b"/a#b", b"/#", b"http://x/#a", b"/a?b#c"])
    def test_fragments_are_refused(self, target: bytes) -> None:
        assert refusal(b"GET", target, [HOST]) == 400


    def test_size_has_a_limit(self) -> None:
        check_target_size(10, 10)
        with pytest.raises(RequestError) as caught:
            check_target_size(11, 10)
        assert caught.value.status == 414


class TestBodySize:
    @pytest.mark.parametrize(("headers", "size"), [
        ([], 0),
        ([(b"content-length", b"0")], 0),
        ([(b"content-length", b"007")], 7),
        ([(b"transfer-encoding", b"chunked")], CHUNKED),
        ([(b"transfer-encoding", b"Chunked")], CHUNKED),
    ])  # fmt: skip
    def test_known_framings(self, headers: Fields, size: int) -> None:
        assert made(headers, method=b"PUT").body_size == size

    @pytest.mark.parametrize(
        "value", [b"+5", b"-1", b"5 5", b"", b"5,5", b"0x5", b"5.0", b"1e3", b"\xb2", b"9" * 19, b"five"]
    )
    def test_what_is_no_length_is_refused(self, value: bytes) -> None:
        assert refusal(b"PUT", b"/", [HOST, (b"content-length", value)]) == 400

    def test_two_lengths_are_refused(self) -> None:
        assert refusal(b"PUT", b"/", [HOST, (b"content-length", b"5"), (b"content-length", b"6")]) == 400

    @pytest.mark.parametrize("coding", [b"chunked", b"gzip", b"identity"])
    def test_length_and_coding_are_refused(self, coding: bytes) -> None:
        assert refusal(b"PUT", b"/", [HOST, (b"content-length", b"5"), (b"transfer-encoding", coding)]) == 400

    def test_coding_in_1_0_is_refused(self) -> None:
        assert refusal(b"PUT", b"/", [HOST, (b"transfer-encoding", b"chunked")], "1.0") == 400

    @pytest.mark.parametrize(("lines", "status"), [
        ([b"gzip, chunked"], 501), ([b"gzip"], 501), ([b"xchunked"], 501), ([b"identity, chunked"], 501),
        ([b"chunked, gzip"], 400), ([b"chunked, chunked"], 400), ([b"chunked", b"chunked"], 400),
        ([b"chunked", b"identity"], 400), ([b"chunked;q=1"], 501), ([b'"chunked"'], 501), ([b""], 400),
        ([b"chunked", b""], 400),
    ])  # fmt: skip
    def test_other_codings_are_refused(self, lines: list[bytes], status: int) -> None:
        headers = [HOST, *((b"transfer-encoding", line) for line in lines)]
        assert refusal(b"PUT", b"/", headers) == status


    def test_body_without_a_size_has_the_one_that_the_wire_knows(self) -> None:
        assert request(b"PUT", b"/", [HOST], "2", CHUNKED).body_size == CHUNKED
        assert request(b"PUT", b"/", [HOST, (b"content-length", b"7")], "2", CHUNKED).body_size == 7


class TestConnection:
    @pytest.mark.parametrize(("version", "lines", "kept"), [
        ("1.1", [], True),
        ("1.1", [b"close"], False),
        ("1.1", [b"CLOSE"], False),
        ("1.1", [b"foo, Close"], False),
        ("1.1", [b"foo", b"close"], False),
        ("1.1", [b"keep-alive, close"], False),
        ("1.1", [b"closed"], True),
        ("1.1", [b"keep-alive"], True),
        ("1.0", [], False),
        ("1.0", [b"keep-alive"], True),
        ("1.0", [b"Keep-Alive"], True),
        ("1.0", [b"keep-alive, close"], False),
    ])  # fmt: skip
    def test_keep_alive(self, version: str, lines: list[bytes], kept: bool) -> None:
        assert made([(b"connection", line) for line in lines], version=version).keep_alive is kept

    @pytest.mark.parametrize(
        ("version", "length", "expected"), [("1.1", b"5", True), ("1.1", b"0", False), ("1.0", b"5", False)]
    )
    def test_continue_is_expected_by_1_1_with_a_body_only(self, version: str, length: bytes, expected: bool) -> None:
        headers = [(b"expect", b"100-Continue"), (b"content-length", length)]
        assert made(headers, method=b"PUT", version=version).expects_continue is expected

    def test_other_expectations_are_refused(self) -> None:
        assert refusal(b"PUT", b"/", [HOST, (b"content-length", b"1"), (b"expect", b"magic")]) == 417


class TestUpgrade:
    @pytest.mark.parametrize(("headers", "upgrade"), [
        ([(b"connection", b"Upgrade"), (b"upgrade", b"websocket")], True),
        ([(b"connection", b"keep-alive, Upgrade"), (b"upgrade", b"WebSocket")], True),
        ([(b"connection", b"upgrade"), (b"upgrade", b"h2c")], False),
        ([(b"upgrade", b"websocket")], False),
        ([(b"connection", b"close"), (b"upgrade", b"websocket")], False),
        ([(b"connection", b"upgrade")], False),
    ])  # fmt: skip
    def test_only_a_websocket_is_an_upgrade(self, headers: Fields, upgrade: bool) -> None:
        assert made(headers).upgrade is upgrade


@pytest.mark.parametrize(("values", "version", "expected"), [
    ([b"trailers"], "1.1", True),
    ([b"Trailers"], "1.1", True),
    ([b"gzip;q=0.5 ,\tTRAILERS, deflate;q=0"], "1.1", True),
    ([b"gzip", b"trailers"], "1.1", True),
    ([b""], "1.1", False),
    ([b"gzip, xtrailers"], "1.1", False),
    # It has no weight, and a server may always leave trailers out.
    ([b"trailers;q=0"], "1.1", False),
    ([b"trailers;q=1"], "1.1", False),
    ([b"trailers"], "1.0", False),
    ([], "1.1", False),
])  # fmt: skip
def test_trailers_are_for_peers_that_take_them(values: list[bytes], version: str, expected: bool) -> None:
    assert made([(b"te", value) for value in values], version=version).trailers is expected


def test_names_with_an_underscore_are_dropped_and_their_twins_stay() -> None:
    headers = [(b"x_real_ip", b"1"), (b"x-real-ip", b"2"), (b"_", b"3"), (b"x-note", b"a_b")]
    assert made(headers).headers == [HOST, (b"x-real-ip", b"2"), (b"x-note", b"a_b")]
    # Nor is it taken for the field that it would be to CGI.
    assert made([(b"content_length", b"3")]).body_size == 0


def test_request_carries_what_was_read() -> None:
    read = request(b"POST", b"/a?b", [HOST, (b"content-length", b"3"), (b"x", b"1"), (b"x", b"2")], "1.1")
    headers = [HOST, (b"content-length", b"3"), (b"x", b"1"), (b"x", b"2")]
    assert read == Request("POST", b"/a?b", headers, "1.1", 3, True, False, False, False, False)


def test_tokens_are_split_stripped_and_lowered() -> None:
    assert tokens(b"a , B,,\tc") == [b"a", b"b", b"", b"c"]
