"""What HTTP/2's fields mean, which requests are malformed, and what a response's block says."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.asgi.scope import CHUNKED, Request
from asgiserver.asgi.tokens import TCHAR
from asgiserver.errors import RequestError
from asgiserver.wire.head import parsed_request
from asgiserver.wire.http2_fields import (
    MalformedRequest,
    careful_request,
    read_request,
    read_trailers,
    response_block,
)
from asgiserver.wire.http2_plain import plain_request

Field = tuple[bytes, bytes]
Fields = list[Field]

METHOD, SCHEME, PATH = (b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/")
AUTHORITY, HOST = (b":authority", b"example.com"), (b"host", b"example.com")
GET = [METHOD, SCHEME, PATH, AUTHORITY]
CONNECT = (b":method", b"CONNECT")
WEBSOCKET = [CONNECT, (b":protocol", b"websocket"), SCHEME, (b":path", b"/chat"), AUTHORITY]


def read(fields: Fields, *, ended: bool = True) -> Request:
    return read_request(fields, 100, ended=ended)


def status(fields: Fields, *, ended: bool = True) -> int:
    """The status that the request is answered with; 0 when its stream is reset, 200 when it is fine."""
    try:
        read(fields, ended=ended)
    except MalformedRequest:
        return 0
    except RequestError as error:
        return error.status
    return 200


def replaced(field: tuple[bytes, bytes]) -> Fields:
    """``GET`` with another value in the field of that name."""
    return [field if name == field[0] else (name, value) for name, value in GET]


class TestRequest:
    def test_plain(self) -> None:
        fields = [*GET, (b"accept", b"*/*"), (b"x", b"1"), (b"x", b"2")]
        assert read(fields) == Request("GET", b"/", [HOST, *fields[4:]], "2", early_hints=True)

    def test_pseudo_headers_come_in_any_order(self) -> None:
        assert read([AUTHORITY, PATH, SCHEME, METHOD]) == read(GET)

    @pytest.mark.parametrize("fields", [
        [SCHEME, PATH, AUTHORITY], [METHOD, PATH, AUTHORITY], [METHOD, SCHEME, AUTHORITY], [METHOD, SCHEME, PATH], [],
        [*GET, METHOD], [*GET, PATH], [*GET, AUTHORITY], [METHOD, *GET],
        [*GET, (b":status", b"200")], [*GET, (b":x", b"1")], [*GET, (b":", b"1")], [*GET, (b":Path", b"/")],
        [*GET[:3], (b"x", b"1"), AUTHORITY], [(b"x", b"1"), *GET], [*GET, (b"x", b"1"), PATH],
        [*GET, (b":protocol", b"websocket")],
    ])  # fmt: skip
    def test_missing_doubled_unknown_and_misplaced_pseudo_headers(self, fields: Fields) -> None:
        """RFC 9113 §8.3."""
        assert status(fields) == 0

    @pytest.mark.parametrize("octet", range(256))
    def test_octets_of_a_name(self, octet: int) -> None:
        good = octet in TCHAR and not chr(octet).isupper()
        assert status([*GET, (b"a" + bytes([octet]), b"1")]) == (200 if good else 0)

    def test_name_must_not_be_empty(self) -> None:
        assert status([*GET, (b"", b"1")]) == 0

    @pytest.mark.parametrize("octet", range(256))
    @pytest.mark.parametrize("name", [b"x", b":authority"])
    def test_octets_of_a_value(self, name: bytes, octet: int) -> None:
        value = b"a" + bytes([octet]) + b"a"
        allowed = octet == 9 or 0x20 <= octet <= 0x7E or 0x80 <= octet != 0x85
        if name == b"x":
            assert status([*GET, (name, value)]) == (200 if allowed else 0)
        else:
            assert (status(replaced((name, value))) != 0) is allowed

    @pytest.mark.parametrize("value", [b" a", b"a ", b"\ta", b"a\t", b" ", b"\t"])
    def test_value_has_no_space_at_its_ends(self, value: bytes) -> None:
        """RFC 9113 §8.2.1."""
        for fields in ([*GET, (b"x", value)], [*GET, (b"x", value), (b"y", b"1")], [*GET, (b"a", b"1"), (b"x", value)]):
            assert status(fields) == 0
        assert status(replaced((b":authority", value))) == 0

    @pytest.mark.parametrize("value", [b"", b"a b", b"a\tb"])
    def test_value_may_be_empty_or_have_spaces_within(self, value: bytes) -> None:
        assert read([*GET, (b"x", value), (b"y", value)]).headers[1:] == [(b"x", value), (b"y", value)]

    @pytest.mark.parametrize(
        "name", [b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"]
    )  # fmt: skip
    def test_fields_that_control_a_connection(self, name: bytes) -> None:
        """RFC 9113 §8.2.2."""
        assert status([*GET, (name, b"close")], ended=False) == 0

    @pytest.mark.parametrize(("values", "verdict"), [
        ([b"trailers"], 200), ([b"Trailers"], 200), ([b"trailers", b"trailers"], 200), ([b"gzip"], 0), ([b""], 0),
        ([b"trailers, gzip"], 0), ([b"gzip", b"trailers"], 0), ([b"trailers;q=0.5"], 0),
    ])  # fmt: skip
    def test_te_says_trailers_only(self, values: list[bytes], verdict: int) -> None:
        lines = [(b"te", value) for value in values]
        assert status([*GET, *lines]) == verdict
        if verdict == 200:
            assert read([*GET, *lines]).headers[1:] == lines

    def test_names_with_an_underscore_are_dropped(self) -> None:
        fields = [*GET, (b"x_real_ip", b"1"), (b"x-real-ip", b"2"), (b"a", b"1"), (b"a", b"2")]
        assert read(fields).headers == [HOST, *fields[5:]]


class TestMethodAndTarget:
    @pytest.mark.parametrize(("method", "verdict"), [
        (b"PROPFIND", 200), (b"M-SEARCH", 200), (b"get", 400), (b"", 0), (b"GE T", 0), (b"GET\x7f", 0), (b"G\xc9T", 0),
        (b"X" * 65, 501),
    ])  # fmt: skip
    def test_method(self, method: bytes, verdict: int) -> None:
        assert status(replaced((b":method", method))) == verdict

    @pytest.mark.parametrize(("path", "verdict"), [
        (b"/", 200), (b"//a", 200), (b"/a?b=%20", 200), (b"/" + b"a" * 99, 200), (b"/" + b"a" * 100, 414),
        (b"", 0), (b"a", 0), (b"?a", 0), (b"http://example.com/", 0), (b"example.com:443", 0), (b"/a b", 0),
        (b"/\xe9", 0), (b"/\x7f", 0), (b"**", 0), (b"*", 400), (b"/a#b", 400),
    ])  # fmt: skip
    def test_path(self, path: bytes, verdict: int) -> None:
        assert status(replaced((b":path", path))) == verdict
        if verdict == 200:
            assert read(replaced((b":path", path))).target == path

    def test_options_may_ask_for_the_whole_server(self) -> None:
        assert read([(b":method", b"OPTIONS"), SCHEME, (b":path", b"*"), AUTHORITY]).target == b"*"

    @pytest.mark.parametrize(("scheme", "verdict"), [
        (b"http", 200), (b"HTTPS", 200), (b"ftp", 400), (b"", 400), (b"wss", 400),
    ])  # fmt: skip
    def test_scheme(self, scheme: bytes, verdict: int) -> None:
        assert status(replaced((b":scheme", scheme))) == verdict


class TestHost:
    def test_authority_is_the_first_field(self) -> None:
        assert read([*GET, (b"a", b"1")]).headers == [HOST, (b"a", b"1")]

    def test_host_may_stand_in_for_it_in_its_place(self) -> None:
        assert read([*GET[:3], (b"a", b"1"), HOST]).headers == [(b"a", b"1"), HOST]

    def test_both_are_one_when_they_are_the_same(self) -> None:
        for host in (b"example.com", b"Example.COM"):
            assert read([*GET, (b"a", b"1"), (b"host", host)]).headers == [HOST, (b"a", b"1")]

    @pytest.mark.parametrize("hosts", [[b"other.com"], [b"example.com:443"], [b"a", b"example.com"], [b""]])
    def test_both_must_not_differ(self, hosts: list[bytes]) -> None:
        """RFC 9113 §8.3.1."""
        assert status([*GET, *((b"host", host) for host in hosts)]) == 0

    def test_two_hosts_are_refused(self) -> None:
        assert status([*GET[:3], HOST, HOST]) == 400

    @pytest.mark.parametrize(("value", "verdict"), [
        (b"a:8000", 200), (b"[::1]", 200), (b"", 0), (b"u:p@a", 400), (b"a/b", 400), (b"a b", 400), (b"\xe9", 400),
        (b"a:http", 400),
    ])  # fmt: skip
    def test_it_must_be_valid(self, value: bytes, verdict: int) -> None:
        assert status(replaced((b":authority", value))) == verdict
        assert status([*GET[:3], (b"host", value)]) == verdict


class TestCookies:
    def test_crumbs_are_joined_in_the_place_of_the_first(self) -> None:
        """RFC 9113 §8.2.3."""
        fields = [*GET, (b"a", b"1"), (b"cookie", b"b=1"), (b"c", b"2"), (b"cookie", b"d=3; e=4"), (b"cookie", b"f=5")]
        assert read(fields).headers == [HOST, (b"a", b"1"), (b"cookie", b"b=1; d=3; e=4; f=5"), (b"c", b"2")]

    def test_a_single_one_stays_as_it_is(self) -> None:
        assert read([*GET, (b"cookie", b"a=1;b=2")]).headers == [HOST, (b"cookie", b"a=1;b=2")]


class TestBody:
    @pytest.mark.parametrize(("lengths", "ended", "size"), [
        ([], True, 0), ([b"0"], True, 0), ([], False, CHUNKED), ([b"5"], False, 5), ([b"0"], False, 0),
    ])  # fmt: skip
    def test_size(self, lengths: list[bytes], ended: bool, size: int) -> None:
        assert read([*GET, *((b"content-length", length) for length in lengths)], ended=ended).body_size == size

    @pytest.mark.parametrize(("lengths", "ended", "verdict"), [
        ([b"5"], True, 0), ([b"5", b"5"], False, 400), ([b"5,5"], False, 400), ([b"+5"], False, 400),
        ([b""], False, 400), ([b"x"], True, 400), ([b"9" * 19], False, 400),
    ])  # fmt: skip
    def test_wrong_lengths(self, lengths: list[bytes], ended: bool, verdict: int) -> None:
        fields = [*GET, *((b"content-length", length) for length in lengths)]
        assert status(fields, ended=ended) == verdict

    def test_continue_is_expected_with_a_body_only(self) -> None:
        fields = [*GET, (b"expect", b"100-continue")]
        assert read(fields, ended=False).expects_continue
        assert not read(fields).expects_continue
        assert status([*GET, (b"expect", b"magic")], ended=False) == 417


class TestConnect:
    def test_websocket(self) -> None:
        """RFC 8441 §5.1."""
        made = read([*WEBSOCKET, (b"sec-websocket-version", b"13")], ended=False)
        assert made == Request(
            "CONNECT", b"/chat", [HOST, (b"sec-websocket-version", b"13")], "2", 0, True, False, True, False, True
        )  # fmt: skip

    @pytest.mark.parametrize(("fields", "verdict"), [
        ([CONNECT, AUTHORITY], 501), ([CONNECT], 0), ([CONNECT, HOST], 0), ([CONNECT, AUTHORITY, PATH], 0),
        ([CONNECT, AUTHORITY, SCHEME], 0),
        ([field for field in WEBSOCKET if field != SCHEME], 0),
        ([field for field in WEBSOCKET if field != AUTHORITY], 0),
        ([field for field in WEBSOCKET if field[0] != b":path"], 0),
        ([*WEBSOCKET[:1], (b":protocol", b"connect-udp"), *WEBSOCKET[2:]], 501),
        ([*WEBSOCKET, (b"upgrade", b"websocket")], 0), ([*WEBSOCKET, (b"connection", b"upgrade")], 0),
    ])  # fmt: skip
    def test_others(self, fields: Fields, verdict: int) -> None:
        assert status(fields, ended=False) == verdict


class TestTrailers:
    def test_good_ones(self) -> None:
        read_trailers([])
        read_trailers([(b"x-checksum", b"1"), (b"x-checksum", b"2")])

    @pytest.mark.parametrize("field", [
        PATH, (b":status", b"200"), (b"X", b"1"), (b"", b"1"), (b"x", b"a\r\nb"), (b"x", b" a"), (b"connection", b"x"),
    ])  # fmt: skip
    def test_bad_ones(self, field: tuple[bytes, bytes]) -> None:
        """RFC 9113 §8.1."""
        with pytest.raises(MalformedRequest):
            read_trailers([(b"a", b"1"), field])


parts = st.binary(max_size=6) | st.sampled_from([b"content-length", b"expect", b"host", b"x_y", b"cookie", b"5"])


@given(st.lists(st.tuples(parts, parts), max_size=6))
def test_any_fields_are_a_request_or_refused(fields: Fields) -> None:
    status([*GET, *fields], ended=False)
    status(fields)


tokens = st.text("abc-_!~", min_size=1, max_size=3).map(str.encode) | st.sampled_from([b"content-length", b"cookie2"])
texts = st.text("a \t\x7f\x01\xe9,5", max_size=4).map(lambda text: text.strip().encode("latin-1"))


@given(st.lists(st.tuples(tokens, texts), max_size=4), st.sampled_from([b"/", b"/a?b", b"/#", b"/a b", b"/\xe9"]))
def test_http_1_refuses_the_same(fields: Fields, path: bytes) -> None:
    expected: Request | None = None
    made: Request | None = None
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    try:
        expected = parsed_request(b"GET %b HTTP/1.1\r\nhost: example.com\r\n%b\r\n" % (path, lines), 100)
    except RequestError:
        pass
    try:
        made = read([*replaced((b":path", path)), *fields], ended=expected is None or not expected.body_size)
    except (MalformedRequest, RequestError):
        pass
    assert made == (expected and expected._replace(http_version="2", early_hints=True))


@given(
    st.permutations(GET),
    st.lists(st.tuples(tokens | parts, texts | parts), max_size=4),
    st.sampled_from([METHOD, (b":method", b"HEAD"), (b":method", b"BREW"), CONNECT, (b"method", b"GET")]),
    st.sampled_from([PATH, (b":path", b"*"), (b":path", b"/#"), (b":path", b"/a?b=%20"), (b":path", b"")]),
    st.sampled_from([AUTHORITY, (b":authority", b"a b"), (b":authority", b""), (b":authority", b"[::1]:80")]),
)
def test_both_ways_read_a_request_alike(
    order: Fields, fields: Fields, method: Field, path: Field, authority: Field
) -> None:
    chosen = {METHOD: method, PATH: path, AUTHORITY: authority}
    head = [*(chosen.get(field, field) for field in order), *fields]
    plain = plain_request(list(head), 16384)
    assert plain is None or plain == careful_request(list(head), 16384, ended=True)


def test_a_usual_request_goes_the_short_way() -> None:
    assert plain_request([*GET, (b"user-agent", b"x")], 100) is not None


class TestResponse:
    DEFAULTS = ((b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"), (b"server", b"asgiserver"))

    def test_block(self) -> None:
        headers = [(b"Content-Type", b"text/plain"), (b"Set-Cookie", b"a=b"), (b"Set-Cookie", b"c=d")]
        block = response_block(404, headers, [name.lower() for name, _ in headers], self.DEFAULTS)
        assert hpack.Decoder().decode(block, raw=True) == [
            (b":status", b"404"), *((name.lower(), value) for name, value in headers), *self.DEFAULTS,
        ]  # fmt: skip

    @pytest.mark.parametrize("status", [100, 103, 200, 418, 599, 999])
    def test_any_status(self, status: int) -> None:
        assert hpack.Decoder().decode(response_block(status, [], []), raw=True) == [(b":status", b"%d" % status)]

    def test_what_the_server_says_each_time_is_short(self) -> None:
        assert len(response_block(200, [], [], self.DEFAULTS)) < 38
