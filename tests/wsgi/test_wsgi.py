"""WSGI applications as ASGI applications (PEP 3333): ``environ``, the body, the rules of a response."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

from asgiserver import __version__
from asgiserver.asgi.interfaces import Message, Scope
from asgiserver.errors import ClientDisconnected
from asgiserver.wsgi import WSGI
from asgiserver.wsgi.environ import make_environ

Environ = dict[str, Any]


def scope_of(
    method: str = "GET", target: bytes = b"/", headers: Sequence[tuple[bytes, bytes]] = (), **more: Any
) -> Scope:
    path, _, query = target.partition(b"?")
    return {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "raw_path": path,
        "path": "not used", "query_string": query, "root_path": "", "headers": headers,
        "client": ["192.0.2.1", 4711], "server": ["192.0.2.2", 8000],
        "extensions": {"http.response.zerocopysend": {}}, **more,
    }  # fmt: skip


def environ_of(target: bytes = b"/", headers: Sequence[tuple[bytes, bytes]] = (), **more: Any) -> Environ:
    return make_environ(scope_of("GET", target, headers, **more))


class Client:
    """Calls an ASGI application as a server does.

    :param body: what is received, in pieces.
    :param leaves: the client has left behind the last piece, which is not the end of its body.
    """

    def __init__(self, scope: Scope, body: Sequence[bytes] = (b"",), leaves: bool = False) -> None:
        self.scope = scope
        self.sent: list[Message] = []
        self.received = 0
        self._events = [{"type": "http.request", "body": piece, "more_body": True} for piece in body]
        if leaves:
            self._events.append({"type": "http.disconnect"})
        else:
            self._events[-1]["more_body"] = False

    async def receive(self) -> Message:
        self.received += 1
        return self._events.pop(0) if self._events else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if "file" in message:
            message["file"].seek(message["offset"])
            message = {**message, "read": message["file"].read(message["count"])}
        self.sent.append(message)

    def call(self, application: Any, **options: Any) -> Client:
        asyncio.run(WSGI(application, **options)(self.scope, self.receive, self.send))
        return self

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def fields(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        """The body of a response that has a clean end."""
        assert [message["type"] for message in self.sent[1:]] == ["http.response.body"] * (len(self.sent) - 1)
        assert [message["more_body"] for message in self.sent[1:]] == [True] * (len(self.sent) - 2) + [False]
        return b"".join(message["body"] for message in self.sent[1:])


def call(application: Any, method: str = "GET", headers: Sequence[tuple[bytes, bytes]] = (), **more: Any) -> Client:
    return Client(scope_of(method, b"/", headers), **more).call(application)


def answering(
    result: Any, status: str = "200 OK", headers: Sequence[tuple[str, str]] = ()
) -> Callable[[Environ, Any], Any]:
    def application(environ: Environ, start_response: Any) -> Any:
        start_response(status, list(headers))
        return result

    return application


def echo(environ: Environ, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("X-Length", environ.get("CONTENT_LENGTH", "none"))])
    return [environ["wsgi.input"].read()]


class Closing:
    """An iterable that counts the calls of its ``close()``."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self.blocks = iter(blocks)
        self.closed = 0
        self.was_closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self.blocks

    def close(self) -> None:
        self.closed += 1
        self.was_closed.set()


class TestEnviron:
    def test_has_what_pep_3333_asks_for(self) -> None:
        headers = [(b"host", b"h"), (b"content-type", b"text/plain"), (b"content-length", b"3"), (b"x-one-two", b"1")]
        environ = make_environ(scope_of("POST", b"/a/b?c=d&e=%20", headers, scheme="https"))
        expected = {
            "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": "/a/b", "QUERY_STRING": "c=d&e=%20",
            "RAW_URI": "/a/b?c=d&e=%20", "REQUEST_URI": "/a/b?c=d&e=%20", "SERVER_NAME": "192.0.2.2",
            "SERVER_PORT": "8000", "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_SOFTWARE": f"asgiserver/{__version__}",
            "REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": "4711", "CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "3",
            "HTTP_HOST": "h", "HTTP_X_ONE_TWO": "1", "wsgi.version": (1, 0), "wsgi.url_scheme": "https",
            "wsgi.input_terminated": True, "wsgi.errors": sys.stderr, "wsgi.multithread": True,
            "wsgi.multiprocess": True, "wsgi.run_once": False, "wsgi.file_wrapper": FileWrapper,
        }  # fmt: skip
        assert environ == expected

    @pytest.mark.parametrize(
        ("target", "path"),
        [(b"/", "/"), (b"/%FF", "/\xff"), (b"/%C3%A9", "/\xc3\xa9"), (b"/a%2Fb%zz", "/a/b%zz"), (b"//a", "//a")],
    )
    def test_path_info_is_the_bytes_of_the_path_as_latin_1(self, target: bytes, path: str) -> None:
        assert environ_of(target)["PATH_INFO"] == path

    @pytest.mark.parametrize(("root_path", "target", "script_name", "path_info"), [
        ("/pre", b"/pre/a", "/pre", "/a"),
        ("/pre", b"/pre/", "/pre", "/"),
        ("/pre", b"/pre", "/pre", ""),
        ("/pre", b"/preface", "/pre", "/preface"),
        ("/pre", b"/pre/preface", "/pre", "/preface"),
        ("/pre", b"/other", "/pre", "/other"),
        ("/pre/", b"/pre/a", "/pre", "/a"),
        ("/pr\u00e9", b"/pr%C3%A9/a", "/pr\xc3\xa9", "/a"),
        ("/", b"/a", "", "/a"),
    ])  # fmt: skip
    def test_script_name_ends_at_a_slash(self, root_path: str, target: bytes, script_name: str, path_info: str) -> None:
        environ = environ_of(target, root_path=root_path)
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script_name, path_info)

    def test_cookies_are_joined_by_semicolons_and_other_fields_by_commas(self) -> None:
        environ = environ_of(b"/", [(b"cookie", b"a=1"), (b"accept", b"x"), (b"cookie", b"b=2"), (b"accept", b"y")])
        assert (environ["HTTP_COOKIE"], environ["HTTP_ACCEPT"]) == ("a=1; b=2", "x,y")

    @pytest.mark.parametrize(("scheme", "port"), [("http", "80"), ("https", "443")])
    @pytest.mark.parametrize("server", [None, ["/run/socket", None]])
    def test_on_a_unix_socket_there_is_no_remote_but_a_server(self, server: Any, scheme: str, port: str) -> None:
        environ = environ_of(client=None, server=server, scheme=scheme)
        assert not {"REMOTE_ADDR", "REMOTE_PORT"} & environ.keys()
        assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", port)

    def test_values_are_latin_1(self) -> None:
        assert environ_of(b"/", [(b"x-name", b"\xe9")])["HTTP_X_NAME"] == "\xe9"


class TestBody:
    def test_that_is_missing_has_no_length(self) -> None:
        client = call(echo)
        assert (client.fields[b"X-Length"], client.body) == (b"none", b"")

    @pytest.mark.parametrize("pieces", [[b"abc"], [b"a", b"b", b"c"], [b"abc", b""]])
    def test_in_chunks_has_the_length_that_it_turned_out_to_have(self, pieces: list[bytes]) -> None:
        client = call(echo, "POST", [(b"transfer-encoding", b"chunked")], body=pieces)
        assert (client.fields[b"X-Length"], client.body) == (b"3", b"abc")

    @pytest.mark.parametrize("headers", [[], [(b"expect", b"100-Continue")]])
    def test_in_many_chunks_is_read_to_its_end_first(self, headers: list[tuple[bytes, bytes]]) -> None:
        client = call(echo, "POST", [(b"transfer-encoding", b"chunked"), *headers], body=[b"x" * 40000] * 5)
        assert (client.fields[b"X-Length"], client.body) == (b"200000", b"x" * 200000)

    def test_in_chunks_without_end_is_refused(self) -> None:
        client = Client(scope_of("POST"), body=[b"x" * 40000] * 5).call(echo, chunked_body_size=160_000)
        assert (client.status, client.received) == (413, 5)

    def test_with_a_length_is_read_when_the_application_reads(self) -> None:
        seen: list[Any] = []
        length = (b"content-length", b"200000")

        def application(environ: Environ, start_response: Any) -> list[bytes]:
            body = environ["wsgi.input"]
            seen.append(client.received)
            seen.append([body.read(10), body.readline(5), len(body.read(80000))])
            seen.append(client.received)
            seen.append((len(body.read()), body.read(), body.read(5), body.readline(), list(body)))
            return echo(environ, start_response)

        client = Client(scope_of("POST", b"/", [length]), body=[b"x" * 40000] * 5)
        client.call(application)
        assert seen == [2, [b"x" * 10, b"x" * 5, 80000], 3, (119985, b"", b"", b"", [])]

    @pytest.mark.parametrize("size", [3, 30000])
    def test_can_be_read_by_lines(self, size: int) -> None:
        lines = [b"a" * size + b"\n", b"\n", b"b" * size + b"\n", b"c" * size]
        seen: list[Any] = []

        def application(environ: Environ, start_response: Any) -> list[bytes]:
            body = environ["wsgi.input"]
            seen.append([body.readline(), *body.readlines()])
            return echo(environ, start_response)

        whole = b"".join(lines)
        length = (b"content-length", b"%d" % len(whole))
        call(application, "POST", [length], body=[whole[at : at + 1000] for at in range(0, len(whole), 1000)])
        assert seen == [lines]

    def test_of_a_client_that_waits_for_100_is_not_asked_for_before_it_is_read(self) -> None:
        headers = [(b"content-length", b"3"), (b"expect", b"100-continue")]
        refused = call(answering([b"no"], "403 Forbidden"), "POST", headers, body=[b"abc"])
        assert (refused.status, refused.received) == (403, 0)
        assert call(echo, "POST", headers, body=[b"abc"]).body == b"abc"

    def test_of_a_client_that_leaves_is_an_error_for_who_reads_it(self) -> None:
        headers = [(b"content-length", b"300000")]
        with pytest.raises(ClientDisconnected, match="before the end of its request"):
            call(echo, "POST", headers, body=[b"x" * 70000], leaves=True)

    def test_of_a_client_that_leaves_soon_reaches_no_application(self) -> None:
        client = call(answering([b"never"]), "POST", [(b"content-length", b"3")], body=[b"a"], leaves=True)
        assert client.sent == []


class TestResponse:
    @pytest.mark.parametrize(("method", "answer", "fields", "body"), [
        pytest.param("GET", answering([b"hello"], headers=[("X-Name", "\xe9")]),
                     {b"X-Name": b"\xe9", b"Content-Length": b"5"}, b"hello", id="one block"),
        pytest.param("GET", answering([b"a", b"", b"b"]), {}, b"ab", id="several blocks"),
        pytest.param("GET", answering(iter([b""])), {b"Content-Length": b"0"}, b"", id="no block"),
        # It ends where the application says.
        pytest.param("GET", answering(iter([b"abc", b"def", b"ghi"]), headers=[("content-length", "4")]),
                     {b"content-length": b"4"}, b"abcd", id="a length of its own"),
        pytest.param("HEAD", answering([b"body"]), {b"Content-Length": b"4"}, b"", id="head"),
        pytest.param("HEAD", answering([]), {}, b"", id="head without a block"),
        pytest.param("HEAD", answering([], headers=[("Content-Length", "13")]), {b"Content-Length": b"13"}, b"",
                     id="head with the length of get"),
        *[
            pytest.param(method, answering(blocks, status), {}, b"", id=f"{method} {status} {blocks}")
            for method, status in (("GET", "204 No Content"), ("GET", "304 Not Modified"), ("HEAD", "304 Not Modified"))
            for blocks in ([b"body"], [])
        ],
    ])  # fmt: skip
    def test_has_fields_and_body(self, method: str, answer: Any, fields: dict[bytes, bytes], body: bytes) -> None:
        client = call(answer, method)
        assert (client.fields, client.body) == (fields, body)

    def test_has_the_status_of_the_application(self) -> None:
        assert call(answering([b"hello"], "201 Created")).status == 201

    def test_runs_what_follows_the_last_byte(self) -> None:
        ran: list[str] = []

        def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [("Content-Length", "1")])
            yield b"x"
            yield b""
            ran.append("to the end")

        assert call(application).body == b"x"
        assert ran == ["to the end"]

    def test_does_not_go_on_when_nothing_more_may_be_sent(self) -> None:
        def endless() -> Iterator[bytes]:
            while True:
                yield b"x"

        client = call(answering(endless(), headers=[("Content-Length", "2")]))
        assert client.body == b"xx"
        assert call(answering(endless()), "HEAD").body == b""

    def test_can_be_written(self) -> None:
        def application(environ: Environ, start_response: Any) -> list[bytes]:
            write = start_response("200 OK", [])
            write(b"one ")
            write(b"two ")
            return [b"three"]

        assert call(application).body == b"one two three"

    def test_begins_with_the_first_block_even_of_a_generator(self) -> None:
        def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
            yield b""
            start_response("202 Accepted", [])
            yield b"body"

        client = call(application)
        assert (client.status, client.body) == (202, b"body")

    def test_blocks_do_not_wait_for_the_next(self) -> None:
        arrived = threading.Event()

        class Watching(Client):
            async def send(self, message: Message) -> None:
                await super().send(message)
                if message.get("body") == b"first":
                    arrived.set()

        def blocks() -> Iterator[bytes]:
            yield b"first"
            assert arrived.wait(20)
            yield b"second"

        client = Watching(scope_of()).call(answering(blocks()))
        assert client.body == b"firstsecond"

    def test_may_be_changed_with_exc_info_before_its_first_block(self) -> None:
        def application(environ: Environ, start_response: Any) -> list[bytes]:
            start_response("200 OK", [("X-One", "1")])
            try:
                raise ValueError
            except ValueError:
                start_response("500 Sorry", [("X-Two", "2")], sys.exc_info())
            return [b"sorry"]

        client = call(application)
        assert (client.status, client.body) == (500, b"sorry")
        assert client.fields == {b"X-Two": b"2", b"Content-Length": b"5"}

    def test_cannot_be_changed_behind_its_first_block(self) -> None:
        def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [])
            yield b"begun"
            try:
                raise ValueError("the cause")
            except ValueError:
                start_response("500 Sorry", [], sys.exc_info())
            yield b"never"

        client = Client(scope_of())
        with pytest.raises(ValueError, match="the cause"):
            client.call(application)
        assert [message["type"] for message in client.sent] == ["http.response.start", "http.response.body"]
        assert client.sent[1]["more_body"]

    @pytest.mark.parametrize(("application", "error", "match"), [
        *[
            (lambda environ, start_response, result=result: result, AssertionError, "has not called start_response")
            for result in ([], [b"block"], iter([b"block"]))
        ],
        (lambda environ, start_response: [start_response("200 OK", []) for _ in range(2)],
         AssertionError, "a second time without exc_info"),
        *[
            (answering([], status), ValueError, "three digits")
            for status in ("", "OK", "20", "2000", "200OK", "\u0662\u0660\u0660 OK", "-20 OK")
        ],
        (answering(["text"]), TypeError, "blocks of bytes, got str"),
        (answering(b"not a list"), TypeError, "blocks of bytes, got int"),
        (answering([], headers=[("X-Price", "\u20ac")]), UnicodeEncodeError, "latin-1"),
    ])  # fmt: skip
    def test_that_is_wrong(self, application: Any, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            call(application)


class TestClose:
    """PEP 3333: ``close()`` is called however the request ends."""

    @pytest.mark.parametrize(("method", "body"), [("GET", b"ab"), ("HEAD", b"")])
    def test_is_called_once_behind_the_last_block(self, method: str, body: bytes) -> None:
        result = Closing([b"a", b"b"])
        assert call(answering(result), method).body == body
        assert result.closed == 1

    def test_is_called_when_the_iterable_raises(self) -> None:
        def blocks() -> Iterator[bytes]:
            yield b"a"
            raise LookupError("in the middle")

        result = Closing(blocks())
        with pytest.raises(LookupError, match="in the middle"):
            call(answering(result))
        assert result.closed == 1

    def test_is_called_when_the_response_was_not_started(self) -> None:
        result = Closing([b"a"])
        with pytest.raises(AssertionError):
            call(lambda environ, start_response: result)
        assert result.closed == 1

    @pytest.mark.parametrize("error", [ClientDisconnected("left"), ValueError("a malformed message")])
    def test_is_called_when_send_raises(self, error: Exception) -> None:
        class Leaving(Client):
            async def send(self, message: Message) -> None:
                raise error

        def endless() -> Iterator[bytes]:
            while True:
                yield b"x" * 1000

        result = Closing(endless())
        with pytest.raises(type(error), match=str(error)):
            Leaving(scope_of()).call(answering(result))
        assert result.closed == 1

    def test_what_send_raises_is_raised_though_the_application_has_returned(self) -> None:
        class Refusing(Client):
            async def send(self, message: Message) -> None:
                raise ValueError("too short")

        with pytest.raises(ValueError, match="too short"):
            Refusing(scope_of()).call(answering([b"x"]))


class TestThreads:
    def test_as_many_run_at_a_time_as_the_executor_has(self) -> None:
        meeting = threading.Barrier(4, timeout=20)

        def application(environ: Environ, start_response: Any) -> list[bytes]:
            meeting.wait()
            return echo(environ, start_response)

        async def run() -> None:
            await asyncio.gather(*(WSGI(application)(each.scope, each.receive, each.send) for each in clients))

        clients = [Client(scope_of()) for _ in range(4)]
        asyncio.run(run())
        assert [client.status for client in clients] == [200] * 4

    def test_sees_the_context_of_its_request_and_changes_nothing_in_it(self) -> None:
        variable = contextvars.ContextVar("variable", default="unset")
        seen: list[str] = []

        def application(environ: Environ, start_response: Any) -> list[bytes]:
            seen.append(variable.get())
            variable.set("changed")
            return echo(environ, start_response)

        async def run() -> None:
            variable.set("set")
            await WSGI(application)(client.scope, client.receive, client.send)
            seen.append(variable.get())

        client = Client(scope_of())
        asyncio.run(run())
        assert seen == ["set", "set"]

    @pytest.mark.parametrize(
        "error",
        [
            SystemExit, StopIteration, GeneratorExit, KeyError, asyncio.CancelledError,
            concurrent.futures.CancelledError,
        ],
    )  # fmt: skip
    def test_whatever_is_raised_is_raised(self, error: type[BaseException]) -> None:
        """What a future cannot hold, or takes for its own cancellation, is the cause of a RuntimeError."""
        cancelled = asyncio.CancelledError | concurrent.futures.CancelledError
        wrapped = issubclass(error, StopIteration | GeneratorExit | cancelled)

        def application(environ: Environ, start_response: Any) -> list[bytes]:
            raise error("reason")

        async def run() -> None:
            with pytest.raises(RuntimeError if wrapped else error) as raised:
                await WSGI(application)(client.scope, client.receive, client.send)
            assert not wrapped or isinstance(raised.value.__cause__, error)

        client = Client(scope_of())
        asyncio.run(run())

    @pytest.mark.parametrize("amount", [1, 100, 5000, 100_000])
    def test_a_client_that_takes_nothing_makes_the_thread_wait(self, amount: int) -> None:
        made = 0

        def endless() -> Iterator[bytes]:
            nonlocal made
            while True:
                made += 1
                yield b"x" * amount

        async def run() -> None:
            async def send(message: Message) -> None:
                if message["type"] == "http.response.body":
                    await asyncio.Event().wait()

            task = asyncio.create_task(WSGI(answering(result))(client.scope, client.receive, send))
            before = -1
            while made != before or not made:
                before = made
                await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(result.was_closed.wait, 20)

        client, result = Client(scope_of()), Closing(endless())
        asyncio.run(asyncio.wait_for(run(), 20))
        # One block is with send(), one waits for room, and what waits is bounded.
        assert made <= 3 + 524_288 // (amount + 64) + 1

    def test_a_client_that_takes_everything_leaves_others_their_turn(self) -> None:
        stop = threading.Event()

        def blocks() -> Iterator[bytes]:
            while not stop.wait(0.0001):
                yield b"x"

        async def run() -> None:
            async def send(message: Message) -> None:
                # The thread makes the next block meanwhile, but the loop does nothing else.
                stop.wait(0.005)

            task = asyncio.create_task(WSGI(answering(blocks()))(client.scope, client.receive, send))
            asyncio.get_running_loop().call_later(0.05, stop.set)
            await asyncio.wait_for(task, 20)

        client, deadline = Client(scope_of()), threading.Timer(15, stop.set)
        deadline.start()
        began = time.monotonic()
        asyncio.run(run())
        deadline.cancel()
        assert time.monotonic() - began < 15

    def test_a_failure_after_a_cancellation_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        begun, cancelled = threading.Event(), threading.Event()

        def application(environ: Environ, start_response: Any) -> list[bytes]:
            begun.set()
            assert cancelled.wait(20)
            raise LookupError("too late")

        async def run() -> None:
            task = asyncio.create_task(WSGI(application)(client.scope, client.receive, client.send))
            assert await asyncio.to_thread(begun.wait, 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            cancelled.set()

        client = Client(scope_of(target=b"/slow"))
        asyncio.run(run())
        assert [record.getMessage() for record in caplog.records] == [
            "Exception in the application for '/slow', whose request was cancelled"
        ]
        assert "too late" in caplog.text

    def test_a_request_that_waits_for_a_thread_can_be_cancelled(self) -> None:
        called: list[str] = []

        def application(environ: Environ, start_response: Any) -> list[bytes]:
            called.append(environ["PATH_INFO"])
            return echo(environ, start_response)

        async def run() -> None:
            free = threading.Event()
            loop = asyncio.get_running_loop()
            busy = [loop.run_in_executor(None, free.wait, 20) for _ in range(32)]
            task = asyncio.create_task(WSGI(application)(client.scope, client.receive, client.send))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            free.set()
            await asyncio.gather(*busy)

        client = Client(scope_of())
        asyncio.run(run())
        assert called == []


class TestFiles:
    """``wsgi.file_wrapper``."""

    def test_a_file_is_left_to_the_kernel_from_where_it_stands(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"0123456789")

        def application(environ: Environ, start_response: Any) -> Any:
            file = path.open("rb")
            file.read(2)
            start_response("200 OK", [])
            opened.append(file)
            return environ["wsgi.file_wrapper"](file)

        opened: list[Any] = []
        client = call(application)
        assert client.sent[1]["read"] == b"23456789"
        assert client.fields == {b"Content-Length": b"8"}
        assert opened[0].closed
        assert client.sent[1]["file"].closed

    def test_no_more_of_it_than_the_length_says(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"0123456789")
        client = call(answering(FileWrapper(path.open("rb")), headers=[("Content-Length", "4")]))
        assert client.sent[1]["read"] == b"0123"

    @pytest.mark.parametrize("at_once", [True, False])
    def test_a_cancelled_request_leaves_no_copy_of_it_open(self, at_once: bool, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"0123456789")

        async def run() -> None:
            put, sending = threading.Event(), asyncio.Event()

            async def send(message: Message) -> None:
                sending.set()
                await asyncio.Event().wait()

            def application(environ: Environ, start_response: Any) -> Any:
                start_response("200 OK", [])

                wrapper = FileWrapper(path.open("rb"))
                wrapper.close = lambda: (wrapper.filelike.close(), put.set())
                return wrapper

            client = Client(scope_of())
            task = asyncio.create_task(WSGI(application)(client.scope, client.receive, send))
            if at_once:
                # The loop has not taken it yet.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert put.wait(20)
            else:
                await sending.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(run())
        gc.collect()

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_what_is_no_plain_file_is_read(self, method: str, tmp_path: Path) -> None:
        class Reading(io.FileIO):
            def read(self, size: int | None = -1, /) -> bytes:
                return super().read(-1 if size is None else size).upper()

        (tmp_path / "file").write_bytes(b"abc")
        (tmp_path / "empty").write_bytes(b"")
        files: list[Any] = [io.BytesIO(b"ABC"), Reading(str(tmp_path / "file")), (tmp_path / "empty").open("rb")]
        bodies = [call(answering(FileWrapper(file)), method).body for file in files]
        assert bodies == ([b"ABC", b"ABC", b""] if method == "GET" else [b"", b"", b""])
        assert all(file.closed for file in files)

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_a_pipe_is_read(self, method: str) -> None:
        """The output of a program, which has no position."""
        ends = os.pipe()
        os.write(ends[1], b"output")
        os.close(ends[1])
        assert call(answering(FileWrapper(os.fdopen(ends[0], "rb"))), method).body == (
            b"output" if method == "GET" else b""
        )


class TestOtherScopes:
    def test_a_lifespan_is_not_there(self) -> None:
        client = Client({"type": "lifespan", "asgi": {}})
        assert client.call(answering([])).sent == []

    def test_a_websocket_is_refused(self) -> None:
        client = Client({"type": "websocket", "asgi": {}})
        assert client.call(answering([])).sent == [{"type": "websocket.close"}]


class TestValidator:
    """``wsgiref.validate`` raises or warns at whatever breaks PEP 3333."""

    @pytest.mark.parametrize("size", [0, 3, 200_000])
    @pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
    def test_finds_nothing(self, method: str, size: int, capsys: pytest.CaptureFixture[str]) -> None:
        def application(environ: Environ, start_response: Any) -> Iterator[bytes]:
            body = environ["wsgi.input"]
            parts = [body.readline(5), body.read(5), *body.readlines(5), *body, body.read(-1)]
            environ["wsgi.errors"].flush()
            write = start_response("200 OK", [("Content-Type", "text/plain")])
            write(b"size ")
            return iter([b"%d" % sum(map(len, parts)), b""])

        pieces = [b"x" * min(50_000, size - at) for at in range(0, size, 50_000)] or [b""]
        headers = [(b"host", b"h"), (b"content-length", b"%d" % size)] if size else [(b"host", b"h")]
        client = Client(scope_of(method, b"/a/b?c", headers), body=pieces).call(validator(application))
        assert client.body == (b"" if method == "HEAD" else b"size %d" % size)
        assert capsys.readouterr().err == ""
