"""Files in a response's place: what is sent of them, and what is refused."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from asgiserver.asgi.files import FilePart, SendFile, SendPath, file_part, open_path, pass_by
from asgiserver.asgi.http import HTTPExchange
from asgiserver.asgi.messages import ResponseStart, parse_http
from asgiserver.errors import MessageError, UnexpectedMessage
from asgiserver.settings import Settings
from tests.fakes import Clock, FakeHub, FakeSocket, FakeStream, WireHub

PATHSEND, ZEROCOPYSEND = "http.response.pathsend", "http.response.zerocopysend"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(b"0123456789")
    return made


@pytest.fixture
def file(path: Path) -> Iterator[io.BufferedReader]:
    with path.open("rb") as opened:
        yield opened


def part_of(reply: SendFile) -> FilePart:
    """What is to be sent; its descriptor is closed."""
    part = file_part(reply)
    os.close(part.descriptor)
    return part


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def size_and_position(part: FilePart) -> tuple[int, int]:
    return part.offset, part.size


class TestMessages:
    def test_good_ones(self, path: Path, file: io.BufferedReader) -> None:
        assert parse_http({"type": PATHSEND, "path": str(path)}) == SendPath(str(path))
        assert parse_http({"type": PATHSEND, "path": path}) == SendPath(str(path))
        assert parse_http({"type": ZEROCOPYSEND, "file": file}) == SendFile(file, None, None, False)
        message = {"type": ZEROCOPYSEND, "file": file, "offset": 2, "count": 0, "more_body": True}
        assert parse_http(message) == SendFile(file, 2, 0, True)

    @pytest.mark.parametrize("wrong", [None, b"/bytes", 5, "", "relative", "/null\0"])
    def test_paths(self, wrong: Any) -> None:
        with pytest.raises(MessageError, match=r'http.response.pathsend: "path" must be'):
            parse_http({"type": PATHSEND, "path": wrong})

    @pytest.mark.parametrize("key", ["offset", "count"])
    @pytest.mark.parametrize("wrong", [-1, 1.5, "1", True])
    def test_numbers(self, file: io.BufferedReader, key: str, wrong: Any) -> None:
        with pytest.raises(MessageError, match=f'"{key}" must be an int of at least 0'):
            parse_http({"type": ZEROCOPYSEND, "file": file, key: wrong})

    @pytest.mark.parametrize("wrong", [None, "/path", 3])
    def test_what_is_no_file(self, wrong: Any) -> None:
        with pytest.raises(MessageError, match='"file" must be an open file'):
            parse_http({"type": ZEROCOPYSEND, "file": wrong})


class TestOpening:
    def test_a_path_is_the_whole_file(self, path: Path) -> None:
        part = open_path(str(path))
        assert size_and_position(part) == (0, 10)
        assert os.pread(part.descriptor, 20, 0) == b"0123456789"
        assert not os.get_inheritable(part.descriptor)
        os.close(part.descriptor)

    def test_what_is_no_regular_file(self, tmp_path: Path) -> None:
        """Nor does a pipe without a writer keep the loop waiting."""
        os.mkfifo(tmp_path / "pipe")
        before = len(os.listdir("/proc/self/fd"))
        for name, text in (("missing", "No such file"), ("", "regular files"), ("pipe", "regular files")):
            with pytest.raises(MessageError, match=text):
                open_path(str(tmp_path / name))
        assert len(os.listdir("/proc/self/fd")) == before

    @pytest.mark.parametrize(("offset", "count", "expected", "position"), [
        (None, None, (4, 6), 10), (None, 3, (4, 3), 7), (2, None, (2, 8), 4), (2, 5, (2, 5), 4), (10, None, (10, 0), 4),
    ])  # fmt: skip
    def test_parts_of_a_file_that_was_read_from(
        self, file: io.BufferedReader, offset: int | None, count: int | None, expected: tuple[int, int], position: int
    ) -> None:
        assert file.read(4) == b"0123"  # its descriptor stands at the end now
        reply = SendFile(file, offset, count, False)
        part = part_of(reply)
        assert size_and_position(part) == expected
        assert file.tell() == 4
        pass_by(reply, part)
        assert file.tell() == position

    def test_more_than_there_is(self, file: io.BufferedReader) -> None:
        with pytest.raises(MessageError, match="the file has 10 bytes, but 8 from 3 on"):
            file_part(SendFile(file, 3, 8, False))

    def test_a_file_that_is_closed(self, file: io.BufferedReader) -> None:
        file.close()
        with pytest.raises(MessageError, match='"file" cannot be sent'):
            file_part(SendFile(file, None, None, False))

    @pytest.mark.parametrize("name", ["\udfff", "x" * 5000])
    def test_a_name_that_no_file_can_have(self, tmp_path: Path, name: str) -> None:
        """An error of the message's, with a part of the name at most."""
        with pytest.raises(MessageError, match=r"http\.response\.pathsend: cannot open") as caught:
            open_path(str(tmp_path / name))
        assert len(str(caught.value)) < 250

    @pytest.mark.parametrize("number", [None, "3", 1.5, 10**20, -1])
    def test_what_is_no_descriptor(self, number: Any) -> None:
        class Odd:
            def fileno(self) -> Any:
                return number

        with pytest.raises(MessageError, match='"file" cannot be sent'):
            file_part(SendFile(Odd(), None, None, False))

    def test_a_file_in_memory(self) -> None:
        with pytest.raises(MessageError, match='"file" cannot be sent'):
            file_part(SendFile(io.BytesIO(b"x"), None, None, False))

    def test_a_file_that_is_open_for_writing_alone(self, tmp_path: Path) -> None:
        with (tmp_path / "new").open("wb") as new, pytest.raises(MessageError, match="for writing alone"):
            file_part(SendFile(new, 0, 0, False))

    def test_a_bare_descriptor_with_a_name(self, file: io.BufferedReader) -> None:
        class Bare:
            def fileno(self) -> int:
                return file.fileno()

        reply = SendFile(Bare(), None, 4, False)
        part = part_of(reply)
        assert size_and_position(part) == (0, 4)
        pass_by(reply, part)
        assert size_and_position(part_of(SendFile(Bare(), None, None, False))) == (4, 6)


class Files(FakeStream):
    """Keeps the files that it is to send until the test says that they are sent."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[tuple[int, int, bool]] = []
        self.sent: Any = None

    def send_file(self, descriptor: int, offset: int, count: int, *, last: bool, sent: Any) -> None:
        os.close(descriptor)
        self._call("file")
        self.files.append((offset, count, last))
        self.sent = sent


class Conversation:
    def __init__(self, method: str = "GET") -> None:
        self.stream = Files()
        scope = {"type": "http", "method": method, "path": "/", "raw_path": b"/", "query_string": b""}
        self.hub = FakeHub(logs_actions=False)
        self.exchange = HTTPExchange(scope, self.stream, self.hub, Settings(), Clock())

    def send(self, kind: str, **message: Any) -> None:
        self.exchange.take_reply(parse_http({"type": kind, **message}))

    def start(self, *headers: tuple[bytes, bytes], status: int = 200) -> Conversation:
        self.send("http.response.start", status=status, headers=headers)
        return self


def answered_by(path: Path, *headers: tuple[bytes, bytes], method: str = "GET", status: int = 200) -> Conversation:
    it = Conversation(method).start(*headers, status=status)
    it.send(PATHSEND, path=str(path))
    return it


def refused(path: Path, match: str, *headers: tuple[bytes, bytes]) -> Conversation:
    """Nothing of the file is sent."""
    it = Conversation().start(*headers)
    with pytest.raises(MessageError, match=match):
        it.send(PATHSEND, path=str(path))
    assert it.stream.calls == []
    return it


class TestExchange:
    @pytest.fixture(autouse=True)
    def _none_is_small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asgiserver.asgi.response._SMALL_FILE", 0)

    @pytest.fixture
    def small(self, _none_is_small: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asgiserver.asgi.response._SMALL_FILE", 10)

    @pytest.fixture
    def shorter(self, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """A small file gives less than it has said."""
        monkeypatch.setattr(os, "pread", lambda *_: b"short")

    @pytest.mark.usefixtures("small")
    def test_a_small_one_is_one_write_with_the_head(self, path: Path) -> None:
        it = answered_by(path)
        assert (it.stream.calls, it.stream.data) == (["respond", "end"], path.read_bytes())
        assert it.stream.framing["content_length"] == 10
        assert it.exchange.finished

    @pytest.mark.usefixtures("shorter")
    def test_a_small_one_that_becomes_shorter_sends_nothing(self, path: Path) -> None:
        it = refused(path, "5 bytes shorter")
        it.exchange.application_done(True)
        assert it.stream.status == 500

    @pytest.mark.usefixtures("shorter")
    def test_one_that_cannot_be_read_leaves_the_response_as_it_was(self, path: Path) -> None:
        """An application may answer in another way then, as with files of /sys, which are shorter than they say."""
        it = refused(path, "5 bytes shorter")
        it.send("http.response.body", body=b"instead")
        assert (it.stream.data, it.stream.framing["content_length"]) == (b"instead", None)

    def test_a_path_gives_the_response_its_length(self, path: Path) -> None:
        it = answered_by(path)
        assert it.stream.files == [(0, 10, True)]
        assert it.stream.framing["content_length"] == 10
        assert (b"content-length", b"10") in it.stream.headers
        assert not it.exchange.finished
        it.stream.sent()
        assert it.exchange.finished

    @pytest.mark.parametrize(("name", "headers", "match"), [
        ("file", [(b"content-length", b"11")], "ends 1 bytes short"),
        ("missing", [], "No such file"),
    ])  # fmt: skip
    def test_what_cannot_be_sent_leaves_the_response_to_a_500(
        self, path: Path, name: str, headers: Any, match: str
    ) -> None:
        it = refused(path.with_name(name), match, *headers)
        it.exchange.application_done(True)
        assert it.stream.status == 500

    def test_trailers_follow_the_last_byte(self, path: Path, file: io.BufferedReader) -> None:
        """And the head says no length, as HTTP/1.1 has trailers behind chunks alone."""
        for kind, message in ((PATHSEND, {"path": str(path)}), (ZEROCOPYSEND, {"file": file})):
            it = Conversation()
            it.send("http.response.start", status=200, trailers=True)
            it.send(kind, **message)
            assert (it.stream.files, it.stream.framing["content_length"]) == ([(0, 10, False)], None)
            it.stream.sent()
            assert not it.exchange.finished
            it.send("http.response.trailers", headers=[(b"x-sum", b"1")])
            assert (it.stream.trailers, it.exchange.finished) == ([(b"x-sum", b"1")], True)

    def test_parts_and_bytes_in_turn(self, file: io.BufferedReader) -> None:
        it = Conversation().start()
        it.send("http.response.body", body=b"<", more_body=True)
        it.send(ZEROCOPYSEND, file=file, count=4, more_body=True)
        it.stream.sent()
        it.send(ZEROCOPYSEND, file=file, offset=8, more_body=True)
        it.stream.sent()
        it.send("http.response.body", body=b">")
        assert it.stream.files == [(0, 4, False), (8, 2, False)]
        assert it.stream.data == b"<>"
        assert it.exchange.finished

    @pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("GET", 204)])
    def test_no_file_where_no_body_belongs(self, path: Path, method: str, status: int) -> None:
        it = answered_by(path, method=method, status=status)
        assert (it.stream.files, it.stream.data, it.exchange.finished) == ([], b"", True)
        assert ((b"content-length", b"10") in it.stream.headers) == (status != 204)

    def test_an_empty_file_is_an_empty_body(self, path: Path) -> None:
        path.write_bytes(b"")
        it = answered_by(path)
        assert it.stream.calls == ["respond", "end"]
        assert it.exchange.finished

    def test_a_path_is_the_only_body(self, path: Path) -> None:
        it = Conversation()
        with pytest.raises(UnexpectedMessage, match="pathsend was sent before"):
            it.send(PATHSEND, path=str(path))
        it.start()
        it.send("http.response.body", body=b"x", more_body=True)
        with pytest.raises(UnexpectedMessage, match="pathsend was sent while"):
            it.send(PATHSEND, path=str(path))

    def test_a_client_that_leaves_meanwhile(self, path: Path) -> None:
        it = answered_by(path)
        it.exchange.disconnected()
        assert it.exchange.gone
        it.stream.sent()
        assert it.exchange.gone

    @pytest.mark.parametrize(
        ("method", "headers"), [("GET", []), ("HEAD", []), ("GET", [(b"content-length", b"99")])]
    )
    def test_no_descriptor_is_left(self, path: Path, file: io.BufferedReader, method: str, headers: Any) -> None:
        """Whether the file is sent, is not to be sent, or is refused."""
        before = open_descriptors()
        for kind, message in ((PATHSEND, {"path": str(path)}), (ZEROCOPYSEND, {"file": file})):
            it = Conversation(method)
            it.start(*headers)
            with pytest.raises(MessageError) if headers and method == "GET" else nullcontext():
                it.send(kind, **message)
        assert open_descriptors() == before

    @pytest.mark.parametrize(("count", "more"), [(6, False), (4, False), (6, True)])
    def test_a_part_that_does_not_fit_is_not_consumed(self, file: io.BufferedReader, count: int, more: bool) -> None:
        """The application may read on where it was, and send the right part."""
        it = Conversation().start((b"content-length", b"5"))
        file.seek(2)
        with pytest.raises(MessageError):
            it.send(ZEROCOPYSEND, file=file, count=count, more_body=more)
        assert file.tell() == 2
        it.send(ZEROCOPYSEND, file=file, count=5)
        assert (it.stream.files, file.tell()) == ([(2, 5, True)], 7)

    def test_a_lack_of_descriptors_is_met_before_anything_is_sent(
        self, path: Path, file: io.BufferedReader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def dup(_: int) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        hub = WireHub()
        connection, transport = hub.connect(FakeSocket())
        connection.dataReceived(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        os.truncate(path, 100_000)
        hub.exchange.take_reply(ResponseStart(200, [], None, False, False, []))
        with monkeypatch.context() as lacking:
            lacking.setattr(os, "dup", dup)
            with pytest.raises(MessageError, match="Too many open files"):
                hub.exchange.take_reply(SendFile(file, None, None, False))
        assert (transport.sent, file.tell()) == (b"", 0)
        hub.exchange.application_done(True)
        assert transport.sent.startswith(b"HTTP/1.1 500 ")
