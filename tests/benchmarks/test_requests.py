"""Requests and answers of the benchmarks where nothing is repeated: they differ, and they are right."""

from __future__ import annotations

import asyncio
import json
import re
import struct
from collections.abc import Iterator
from typing import Any, cast

import h11
import hpack
import pytest

from tests.benchmarks import applications, h2load, load, wrk
from tests.benchmarks.echoes import Echoes, varied_texts
from tests.benchmarks.frames import server_frame
from tests.benchmarks.http2_requests import Connection, block_of
from tests.benchmarks.loads import JSON, LOADS, PAGE, PROXIED, VARIED
from tests.benchmarks.requests import Requests
from tests.benchmarks.running import Running, ServerFailed
from tests.benchmarks.varied import Varied

MANY = 2000
#: The last number that a slice may begin with, and those after it.
NUMBERS = range((1 << 31) - 1, (1 << 31) - 1 + MANY)


def parsed(message: bytes) -> tuple[h11.Request, bytes]:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(message)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert connection.trailing_data == (b"", False)
    return request, body


def answered(application: Any, message: bytes) -> tuple[dict[bytes, bytes], bytes]:
    """The fields and the body that the application answers, as behind a proxy."""
    request, body = parsed(message)
    path, _, query = request.target.partition(b"?")
    forwarded = dict(request.headers)[b"x-forwarded-for"].decode("ascii")
    scope = {"type": "http", "path": path.decode("ascii"), "query_string": query}
    scope |= {"scheme": "https", "client": (forwarded, 1)}
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    asyncio.run(application(scope, receive, send))
    start, content = said
    return dict(start["headers"]), content["body"]


class TestRequests:
    @pytest.mark.parametrize("request_", [VARIED, JSON, PROXIED], ids=["varied", "json", "proxied"])
    def test_no_two_are_alike_in_anything_that_differs_between_clients(self, request_: Varied) -> None:
        targets, fields, bodies = set(), [], set()
        for number in NUMBERS:
            request, body = parsed(request_.message(number, "127.0.0.1:4321"))
            targets.add(request.target)
            fields.append(dict(request.headers))
            bodies.add(body)
        assert len(targets) == MANY
        assert len(bodies) == (MANY if request_.posts else 1)
        for name in (b"cookie", b"x-request-id", b"x-forwarded-for"):
            assert len({each[name] for each in fields}) == MANY
        assert {each[b"host"] for each in fields} == {b"127.0.0.1:4321"}
        assert len({len(target) for target in targets}) > 40
        assert {each.get(b"x-forwarded-proto") for each in fields} == {b"https" if request_ is PROXIED else None}

    def test_json_is_json_of_a_kibibyte(self) -> None:
        for number in NUMBERS[::100]:
            _, body = parsed(JSON.message(number, "host"))
            assert json.loads(body)["id"] == number
            assert 0.95 < len(body) / 1024 < 1.15

    def test_each_slice_begins_elsewhere(self) -> None:
        starts = {re.findall(r"local START = (\d+)", VARIED.script("host"))[0] for _ in range(5)}
        assert len(starts) > 1

    @pytest.mark.parametrize("request_", [VARIED, JSON], ids=["get", "post"])
    def test_wrk_is_told_all_of_it(self, request_: Varied) -> None:
        script = wrk.script(request_, "127.0.0.1:4321", 32, 0.5)
        assert "Host: 127.0.0.1:4321\\r\\n" in script
        assert ("#body" in script) == request_.posts
        assert "local CONNECTIONS, LEAD, SECONDS = 32, 0.05, 0.5\n" in script


class TestAnswers:
    CASES = [
        (applications.varied, VARIED), (applications.page, PAGE), (applications.json, JSON),
        (applications.proxied, PROXIED),
    ]  # fmt: skip

    @pytest.mark.parametrize(("application", "request_"), CASES, ids=lambda case: getattr(case, "__name__", ""))
    def test_they_are_as_expected_and_differ(self, application: Any, request_: Varied) -> None:
        heads, bodies = [], set()
        for number in NUMBERS[:200]:
            fields, body = answered(application, request_.message(number, "host"))
            assert body == request_.expected(number)
            lower = {name.lower(): value for name, value in fields.items()}
            assert lower[b"content-length"] == b"%d" % len(body)
            heads.append(lower)
            bodies.add(body)
        assert len(bodies) == len(heads)
        assert len({head[b"content-length"] for head in heads}) > 30
        for name in {b"etag", b"set-cookie"} & set(heads[0]):
            assert len({head[name] for head in heads}) == len(heads)

    def test_small_ones_differ_in_four_fields(self) -> None:
        found = [answered(applications.varied, VARIED.message(number, "host"))[0] for number in NUMBERS[:50]]
        assert {tuple(fields) for fields in found} == {
            (b"content-type", b"content-length", b"etag", b"set-cookie", b"vary")
        }
        assert len({fields[b"vary"] for fields in found}) == 4

    def test_a_page_is_five_kibibytes_with_seven_fields(self) -> None:
        for number in NUMBERS[:50]:
            fields, body = answered(applications.page, PAGE.message(number, "host"))
            assert len(fields) == 7
            assert 0.95 < len(body) / 5120 < 1.05

    def test_a_wrong_one_before_the_first_slice_is_a_failure(self) -> None:
        """As of a server that takes the client from no forwarding field."""

        class Direct:
            host = "127.0.0.1:1"

            def answer(self, message: bytes) -> bytes:
                return b"https 127.0.0.1 /articles"

        with pytest.raises(ServerFailed, match=r"a wrong answer of 25 bytes that begins with b'https 127\.0\.0\.1 '"):
            load._check(LOADS["proxied"], cast(Running, Direct()))


class TestMessages:
    def test_texts_differ_have_their_size_and_are_not_only_ascii(self) -> None:
        texts = varied_texts(MANY)
        assert len(set(texts)) == MANY
        sizes = {len(text) for text in texts}
        assert min(sizes) == 20
        assert max(sizes) == 400
        assert not any(text.decode("utf-8").isascii() for text in texts)

    def test_each_turn_is_another_with_the_length_of_its_answer(self) -> None:
        echoes = Echoes(1, varied=True)
        turns = [next(echoes.turns) for _ in range(MANY)]
        assert len({frame for frame, _ in turns}) == MANY
        assert [length for _, length in turns] == [len(server_frame(text)) for text in echoes.payloads[:MANY]]
        assert len({next(Echoes(1).turns) for _ in range(3)}) == 1


class FakeSocket:
    """Gives what it is given; takes everything."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces: Iterator[bytes] = iter(pieces)
        self.taken: list[bytes] = []

    def recv(self, size: int) -> bytes:
        return next(self.pieces)

    def send(self, data: bytes) -> int:
        self.taken.append(data)
        return len(data)


class TestClientOfPlainSockets:
    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"

    def fed(self, *pieces: bytes) -> tuple[Requests, FakeSocket]:
        client, sock = Requests(1), FakeSocket(*pieces)
        client._ask(7, cast(Any, sock))
        for _ in pieces:
            client._answered(7, cast(Any, sock))
        return client, sock

    @pytest.mark.parametrize("cut", [1, 20, 40, 45, 48])
    def test_the_next_one_follows_a_whole_answer(self, cut: int) -> None:
        client, sock = self.fed(self.ANSWER[:cut], self.ANSWER[cut:])
        assert len(client.times) == 1
        assert len(set(sock.taken)) == 2
        assert client.parts == {}

    def test_none_follows_a_part_of_one(self) -> None:
        client, sock = self.fed(self.ANSWER[:-1])
        assert client.times == []
        assert len(sock.taken) == 1

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (b"", "the server closed a connection"),
            (ANSWER + b"!", "more came than the answer's length says"),
            (ANSWER.replace(b"200", b"500"), "an answer that begins with b'HTTP/1.1 500"),
            (ANSWER.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked"), "an answer that begins with"),
        ],
    )
    def test_anything_else_is_a_failure(self, answer: bytes, reason: str) -> None:
        with pytest.raises(wrk.ClientFailed, match=re.escape(reason)):
            self.fed(answer)


def http2_frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    return struct.pack("!IBI", len(payload) << 8 | kind, flags, number) + payload


class TestClientOfHTTP2:
    HEAD = http2_frame(1, 4, 1, b"\x88")
    ANSWER = HEAD + http2_frame(0, 0, 1, b"hel") + http2_frame(0, 1, 1, b"lo")

    def fed(self, *pieces: bytes) -> tuple[list[float], Connection, FakeSocket]:
        sock = FakeSocket(*pieces)
        connection = Connection(cast(Any, sock))
        connection.ask([(b"\x82", 5)])
        return [since for _ in pieces for since in connection.received()], connection, sock

    def test_no_block_refers_to_what_another_has_told(self) -> None:
        blocks = [block_of(VARIED.message(number, "host")) for number in NUMBERS[:50]]
        fields = [hpack.Decoder().decode(block, raw=True) for block in reversed(blocks)]
        assert len({dict(each)[b"cookie"] for each in fields}) == len(blocks)
        assert [name for name, _ in fields[0]][:5] == [b":method", b":scheme", b":authority", b":path", b"accept"]

    @pytest.mark.parametrize("cut", [0, 5, 12, 25, 30])
    def test_an_answer_may_come_in_pieces(self, cut: int) -> None:
        begun, connection, sock = self.fed(self.ANSWER[:cut] or self.HEAD[:1], self.ANSWER[cut or 1 :])
        assert len(begun) == 1
        assert not connection.under_way
        assert sock.taken == [http2_frame(1, 5, 1, b"\x82")]

    def test_settings_and_pings_are_answered(self) -> None:
        _, _, sock = self.fed(http2_frame(4, 0, 0) + http2_frame(6, 0, 0, b"12345678") + http2_frame(4, 1, 0))
        assert sock.taken[1:] == [http2_frame(4, 1, 0), http2_frame(6, 1, 0, b"12345678")]

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (b"", "the server closed a connection"),
            (HEAD + http2_frame(0, 1, 1, b"hell"), "1 bytes of an answer are missing"),
            (http2_frame(3, 0, 1, b"abcd"), "a frame of type 3: b'abcd'"),
            (http2_frame(7, 0, 0, b"abcdefgh"), "a frame of type 7"),
        ],
    )
    def test_anything_else_is_a_failure(self, answer: bytes, reason: str) -> None:
        with pytest.raises(wrk.ClientFailed, match=re.escape(reason)):
            self.fed(answer)


class TestH2load:
    LOG = "1000000\t200\t500000\n1600000\t200\t1500\n1700000\t200\t2500\n1900000\t200\t100000\n"

    def test_what_was_answered_in_between_counts(self) -> None:
        assert h2load.answered(self.LOG, 1.5, 2.0) == [500.0, 1.5, 2.5]

    @pytest.mark.parametrize(
        ("log", "reason"),
        [(LOG + "1\t404\t1\n", "answered 404"), (LOG + "1\t-1\t1\n", "a stream was reset")],
    )
    def test_anything_else_is_a_failure(self, log: str, reason: str) -> None:
        with pytest.raises(wrk.ClientFailed, match=reason):
            h2load.answered(log, 1.5, 2.0)
