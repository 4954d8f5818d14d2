"""The same requests to Django's own handler and to ours: what each answers, byte for byte but for dates."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator

import pytest

from .django_site.running import LARGE, SMALL, Answer, Connection, Site, head, multipart, site

FORM = "Content-Type: application/x-www-form-urlencoded"
PARTS = "Content-Type: multipart/form-data; boundary=edge"
ON_DISK = b"0123456789" * 6000

Row = tuple[bytes, int, str]


def post(target: str, body: bytes, *fields: str) -> bytes:
    return head(target, *fields, method="POST", body=body)


def chunked(target: str, *pieces: bytes, fields: tuple[str, ...] = (), end: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head(target, "Transfer-Encoding: chunked", *fields, method="POST", body=body + end)


def upload(name: str, data: bytes, kind: str = "text/plain") -> tuple[str, bytes]:
    return f'name="{name}"; filename="{name}.txt"\r\nContent-Type: {kind}', data


#: What is sent, the status, and what the answer has to contain.
REQUESTS: dict[str, Row] = {
    "plain": (head("/echo/"), 200, "ASGIRequest"),
    "fields": (head("/echo/", "X-One: a", "X-One: b", "X_Two: c", "Cookie: a=1", "Cookie: b=2"), 200, "a,b"),
    "latin field": (head("/echo/", "X-Name-Of: größe"), 200, "HTTP_X_NAME_OF"),
    "cookies": (head("/echo/", 'Cookie: a="x\\054y"; b; =c; d=e=f; ü=1; a=2'), 200, "'a': '2'"),
    "prefix": (head("/shop/echo/"), 200, "'SCRIPT_NAME': '/shop'"),
    "prefix twice": (head("/shop/shop/echo/"), 404, "Not Found"),
    "prefix alone": (head("/shop"), 404, "Not Found"),
    "reverse": (head("/echo/?a"), 200, "'/shop/echo/?a'"),
    "root": (head("/"), 404, "Not Found"),
    "query": (head("/echo/?a=1&a=2&b=&c&=d&e=%20+%2B"), 200, "['1', '2']"),
    "query of odd bytes": (head("/echo/?a=%ff&b=%00&c=%C3%A9&d=%zz&%ff=1;e&f=a=b??"), 200, "QUERY_STRING"),
    "query of raw bytes": (head("/echo/?a=\xff\xc3\xa9"), 400, ""),
    "path of odd bytes": (head("/echo/%C3%A9/%2F/a;b,c+d%20/"), 200, "é"),
    "path that is not UTF-8": (head("/echo/%ff%fe/"), 200, "/echo/%EF%BF%BD%EF%BF%BD/"),
    "path with a zero": (head("/echo/%00/"), 200, "x00"),
    "path of slashes": (head("//echo//"), 404, "Not Found"),
    "absolute target": (head("http://h/echo/?a=1"), 200, "a=1"),
    "long query": (head("/echo/?a=" + "x" * 15_000), 200, "xxxx"),
    "many parameters": (head("/echo/?" + "&".join(f"a{number}=1" for number in range(60))), 400, "Bad Request"),
    "HTTP/1.0": (b"GET /echo/ HTTP/1.0\r\nHost: h\r\n\r\n", 200, "ASGIRequest"),
    "OPTIONS": (head("/echo/", method="OPTIONS"), 200, "'OPTIONS'"),
    "own method": (head("/echo/", method="PURGE"), 200, "'PURGE'"),
    "wrong host": (head("/echo/", host="evil.example"), 400, "Bad Request"),
    "malformed host": (head("/echo/", host="a_b:c"), 400, ""),
    "no slash": (head("/echo"), 301, "/shop/echo/"),
    "no slash, POST": (post("/shop/echo", b"a=1", FORM), 301, "/shop/echo/"),
    "no such path": (head("/nowhere/"), 404, "<h1>Not Found</h1>"),
    "form": (post("/echo/", b"a=1&a=2&b=%C3%A9&c=+", FORM), 200, "'é'"),
    "form of another charset": (post("/echo/", b"a=%E9", f"{FORM}; charset=latin-1"), 400, ""),
    "form of an unknown charset": (post("/echo/", b"a=%E9", f"{FORM}; charset=nonsense"), 200, "['\ufffd']"),
    "form of raw bytes": (post("/echo/", b"a=\xff\x00&\xc3\xa9=1", FORM), 200, ""),
    "form, empty": (post("/echo/", b"", FORM), 200, '\'CONTENT_LENGTH\': \'0\''),
    "form, chunked": (chunked("/echo/", b"a=1", b"&b", b"=2", fields=(FORM,)), 200, "'b': ['2']"),
    "form, chunked with trailers": (
        chunked("/echo/", b"a=1", fields=(FORM, "Trailer: X-T"), end=b"0\r\nX-T: 1\r\n\r\n"), 200, "'a': ['1']"),
    "form, chunked and empty": (chunked("/echo/", fields=(FORM,)), 200, '"post": "{}"'),
    "form by PUT": (head("/echo/", FORM, method="PUT", body=b"a=1"), 200, '"post": "{}"'),
    "form too large": (post("/echo/", b"a=" + b"x" * 100_001, FORM), 400, "Bad Request"),
    "too many fields": (post("/echo/", b"&".join([b"a=1"] * 51), FORM), 400, "Bad Request"),
    "JSON": (post("/echo/", b'{"a": 1}', "Content-Type: application/json"), 200, '"post": "{}"'),
    "no type": (post("/echo/", b"a=1"), 200, '"post": "{}"'),
    "GET with a body": (head("/body/body_twice/", body=b"a body"), 200, "a body"),
    "files in memory": (
        post("/echo/", multipart(('name="a"', b"1"), upload("f", b"data"), upload("f", b"more")), PARTS), 200,
        f"InMemoryUploadedFile', 'f.txt', 4, 'text/plain', None, {zlib.crc32(b'more')}"),
    "file on disk": (
        post("/echo/", multipart(upload("f", ON_DISK)), PARTS), 200,
        f"TemporaryUploadedFile', 'f.txt', 60000, 'text/plain', None, {zlib.crc32(ON_DISK)}"),
    "file of a name to clean": (
        post("/echo/", multipart(('name="f"; filename="../../é\\"x.txt"', b"1")), PARTS), 200, "é"),
    "file in base64": (
        post("/echo/", multipart((upload("f", b"")[0] + "\r\nContent-Transfer-Encoding: base64", b"aGVsbG8=")), PARTS),
        200, str(zlib.crc32(b"hello"))),
    "files too many": (post("/echo/", multipart(*[upload("f", b"1")] * 4), PARTS), 400, "Bad Request"),
    "file, chunked": (
        chunked("/echo/", *re.findall(rb"(?s).{1,70}", multipart(upload("f", b"data" * 50))), fields=(PARTS,)), 200,
        # Django takes a body without a length for an empty one here.
        '"files": "{}"'),
    "multipart cut off": (post("/echo/", multipart(upload("f", b"data"))[:-30], PARTS), 200, ""),
    "multipart without a boundary": (post("/echo/", b"x", "Content-Type: multipart/form-data"), 400, "Bad Request"),
    "multipart of nonsense": (post("/echo/", b"\r\n--edge\r\n\x00\r\n\r\n--edge--", PARTS), 200, ""),
    "multipart, bad base64": (
        post("/echo/", multipart((upload("f", b"")[0] + "\r\nContent-Transfer-Encoding: base64", b"a")), PARTS), 400,
        "Bad Request"),
    "multipart, empty": (post("/echo/", b"", PARTS), 200, '"files": "{}"'),
    "body larger than the server takes": (head("/echo/", "Content-Length: 2000000", method="POST"), 413, ""),
    "body larger than Django takes": (post("/body/body_twice/", b"x" * 100_001), 400, "Bad Request"),
    "body that is no form": (post("/body/stream/", b"one\ntwo\nthree"), 200, r"(b'one', b'\n', [b'two\n', b'three'])"),
    "body on disk, in lines": (post("/body/lines/", b"0123456789\n" * 6000), 200, r"b'0123456789\n'"),
    "POST, then body": (post("/body/post_then_body/", b"a=1", FORM), 200, "(1, 3)"),
    "multipart POST, then body": (
        post("/body/post_then_body/", multipart(('name="a"', b"1")), PARTS), 200, "RawPostDataException"),
    "read, then body": (post("/body/read_then_body/", b"a=1234", FORM), 200, "RawPostDataException"),
    "read, then POST": (post("/body/read_then_post/", b"a=1234", FORM), 200, "(b'a=1', <QueryDict: {}>)"),
    "body, then all": (post("/body/body_twice/", b"a=1", FORM), 200, "(b'a=1', b'a=1', b'a=1', <QueryDict: {'a'"),
    "handler of one's own": (post("/measured/", multipart(upload("f", ON_DISK)), PARTS), 200, "{'f': b'60000'}"),
    "handler that stops": (post("/measured/", multipart(upload("f", b"." * 70_000)), PARTS), 200, "{}"),
    "pieces": (post("/pieces/", b"x" * 95_000), 200, '{"sizes": [10000, 10000, 10000], "sum": 95000}'),
    "CSRF": (post("/fail/missing/", b"a=1", FORM), 403, "CSRF"),
}  # fmt: skip

RESPONSES: dict[str, Row] = {
    **{
        f"{way}{name}": (head(f"/{way}{name}/", "Accept-Encoding: gzip"), status, has)
        for way in ("respond/", "async/respond/", "compressed/")
        for name, status, has in [
            ("plain", 200, "plain"), ("empty", 200, "('Content-Length', '0')"), ("json", 200, ""), ("bytes", 200, ""),
            ("latin", 200, "gr\xf6"), ("cookies", 200, "name-19"), ("redirect", 301, "/echo/?gr%C3%B6%C3%9Fe"),
            ("none", 204, ""), ("fresh", 304, ""), ("reason", 418, ""), ("length", 200, "four"), ("large", 200, ""),
            ("written", 200, ""), ("template", 200, ""), ("stream", 200, ""), ("stream-empty", 200, ""),
            ("file", 200, "small.bin"), ("nothing", 500, "Server Error"), ("text", 500, "Server Error"),
        ]
    },
    **{
        f"HEAD {name}": (head(f"/respond/{name}/", method="HEAD"), 200, "body=b''")
        for name in ("plain", "empty", "stream", "file", "large")
    },
    **{
        f"{way}{name}": (head(f"/{way}{name}/"), status, "")
        for way in ("fail/", "async/fail/")
        for name, status in {"missing": 404, "denied": 403, "bad": 400, "suspicious": 400, "error": 500}.items()
    },
    **{
        f"hook {word} {name}": (head("/respond/template/", f"X-{word}: {name}"), status, "")
        for word, status in (("Fail", 500), ("Answer", 200))
        for name in ("process_request", "process_view", "process_template_response", "process_response")
    },
    "hook of exceptions answers": (head("/fail/error/", "X-Answer: process_exception"), 200, "exception answers"),
    "hook of exceptions fails": (head("/fail/error/", "X-Fail: process_exception"), 500, ""),
    "hook and a coroutine": (head("/async/fail/error/", "X-Answer: process_exception"), 200, "exception answers"),
}  # fmt: skip

VIEWS: dict[str, Row] = {
    "class": (head("/kinds/class/"), 200, "class: get"),
    "class, no such method": (post("/kinds/async-class/", b"", "X-None: 1").replace(b"POST", b"PUT"), 405, "Allow"),
    "async class": (head("/kinds/async-class/"), 200, "async class: True"),
    "async class, POST": (post("/kinds/async-class/", b"name=a", FORM), 200, "async class: a"),
    "template": (head("/kinds/page/"), 200, "by a hook"),
    "decorated": (head("/kinds/decorated/"), 200, "no-store"),
    "decorated, wrong method": (head("/kinds/decorated/", method="OPTIONS"), 405, ""),
    "conditional": (head("/kinds/conditional/", 'If-None-Match: "fixed"'), 304, ""),
    "conditional, changed": (head("/kinds/conditional/", 'If-None-Match: "old"'), 200, "conditional"),
    "hidden coroutine": (head("/kinds/hidden/"), 500, ""),
    "partial": (head("/kinds/partial/"), 200, "partial kinds:partial"),
    "lambda that returns a coroutine": (head("/kinds/lambda/"), 500, ""),
    "namespace": (head("/kinds/7/class/"), 200, "class: get"),
    "async in a namespace": (head("/kinds/7/async-class/"), 200, "async class"),
    "other URLconf": (head("/only/here/", "X-Urlconf: other_urls"), 200, "the other URLconf"),
    "other URLconf, own 404": (head("/echo/", "X-Urlconf: other_urls"), 404, "own 404: Resolver404"),
    "other URLconf, own 500": (head("/fail/error/", "X-Urlconf: other_urls"), 500, "own 500"),
    "the URLconf as before": (head("/only/here/"), 404, "Not Found"),
}

FILES: dict[str, Row] = {
    **{
        f"{method} {name}": (head(f"/file/{name}/", method=method), status, has)
        for method in ("GET", "HEAD")
        for name, status, has in [
            ("plain", 200, "20000"), ("large", 200, str(len(LARGE))),
            ("attachment", 200, "gr%C3%B6%C3%9Fe%20%C3%A9.bin"), ("quoted", 200, r'a\\"b'),
            ("memory", 200, "9000"), ("memory-seek", 200, "8900"), ("seek", 200, "19900"),
            ("raw", 200, "20000"), ("gzip", 200, ""), ("own-class", 200, "20000"), ("part", 206, "100-599"),
            ("temporary", 200, "notes.txt"), ("null", 200, ""), ("storage", 200, "20000"), ("streamed", 200, ""),
        ]
    },
    "GET fifo": (head("/file/fifo/"), 200, "through a pipe"),
    "known": (head("/file/tagged/", 'If-None-Match: "small"'), 304, ""),
    "range": (head("/file/plain/", "Range: bytes=10-19"), 200, "20000"),
    "zipped": (head("/file/zipped/", "Accept-Encoding: gzip"), 200, "gzip"),
}  # fmt: skip

#: What cannot be the same: what is random, and the time.
CHANGING = ("date", "last-modified", "expires")


@pytest.fixture(scope="module")
def sites() -> Iterator[list[Site]]:
    """Django's handler and ours."""
    options = ("--root-path", "/shop", "--limit-body-size", "1000000")
    with site("django", *options, ASYNC_RECEIVER="1") as django, site("ours", *options, ASYNC_RECEIVER="1") as ours:
        yield [django, ours]


def compare(sites: list[Site], request: bytes) -> Answer:
    """Ours, which must be that of Django's handler; from then on the connection serves as before, or is closed."""
    answers = []
    for each in sites:
        with Connection(each) as connection:
            answers.append(connection.ask(request).without(*CHANGING))
    theirs, ours = answers
    if theirs.field("content-encoding") == "gzip":
        # Django adds a random number of bytes, against BREACH.
        theirs, ours = theirs.without("content-length"), ours.without("content-length")
    assert (ours.status, ours.reason, ours.fields) == (theirs.status, theirs.reason, theirs.fields)
    assert plain(ours) == plain(theirs)
    return ours


def plain(answer: Answer) -> bytes:
    return gzip.decompress(answer.body) if answer.field("content-encoding") == "gzip" and answer.body else answer.body


@pytest.mark.parametrize("row", REQUESTS.values(), ids=REQUESTS)
def test_requests(sites: list[Site], row: Row) -> None:
    request, status, has = row
    answer = compare(sites, request)
    assert answer.status == status, answer
    assert has in f"{answer.fields} {answer.body.decode()}"


@pytest.mark.parametrize("row", [*RESPONSES.values(), *VIEWS.values()], ids=[*RESPONSES, *VIEWS])
def test_responses(sites: list[Site], row: Row) -> None:
    request, status, has = row
    answer = compare(sites, request)
    assert answer.status == status, answer
    assert has in f"{answer.fields} {answer.body.decode('latin-1')} body={answer.body!r}"


@pytest.mark.parametrize("row", FILES.values(), ids=FILES)
def test_files(sites: list[Site], row: Row) -> None:
    request, status, has = row
    answer = compare(sites, request)
    assert answer.status == status, answer
    assert has in f"{answer.fields} {answer.body!r}"


@pytest.mark.parametrize(
    ("name", "body"),
    {
        "plain": SMALL, "large": LARGE, "seek": SMALL[100:], "gzip": SMALL, "raw": SMALL, "part": SMALL[100:600],
        "own-class": bytes(255 - byte for byte in SMALL), "null": b"", "zipped": SMALL, "storage": SMALL,
        "streamed": SMALL, "temporary": b"temporary" * 100,
    }.items(),
)  # fmt: skip
def test_files_are_what_they_should_be(sites: list[Site], name: str, body: bytes) -> None:
    """Beside the comparison, in which both may be wrong."""
    for each in sites:
        with Connection(each) as connection:
            assert connection.ask(head(f"/file/{name}/")).body == body


def test_connections_are_kept_after_errors(sites: list[Site]) -> None:
    targets = ["/fail/error/", "/nowhere/", "/respond/nothing/", "/respond/stream/", "/file/plain/", "/fail/bad/"]
    for each in sites:
        with Connection(each) as connection:
            statuses = [connection.ask(head(target)).status for target in [*targets, *targets]]
            unread = post("/fail/missing/", b"x" * 90_000)
            assert statuses == [500, 404, 500, 200, 200, 400] * 2
            assert [connection.ask(unread).status, connection.ask(head("/echo/")).status] == [403, 200]


def test_pipelined_requests_are_answered_in_order(sites: list[Site]) -> None:
    targets = ["/echo/?first", "/async/respond/plain/", "/respond/large/", "/file/plain/", "/echo/?last"]
    found = []
    for each in sites:
        with Connection(each) as connection, connection.socket.makefile("rb") as answers:
            last = head("/respond/none/", "Connection: close")
            connection.send(b"".join(map(head, targets)) + last)
            found.append(re.sub(rb"\r\ndate: [^\r]*", b"", answers.read()))
    assert found[0] == found[1]
    assert found[0].count(b"HTTP/1.1 200 OK\r\n") == 5


@pytest.mark.parametrize(
    "path",
    [
        *(f"/{way}respond/{name}/" for way in ("", "async/") for name in ("plain", "stream", "file", "none", "large")),
        "/nowhere/", "/fail/error/", "/fail/bad/", "/async/fail/error/", "/file/memory/", "/respond/stream-empty/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_each_response_is_closed_once_and_after_the_middleware(sites: list[Site], path: str, method: str) -> None:
    path = f"/shop{path}"
    for each in sites:
        each.rest()
        before = [len(each.said(word)) for word in ("closed", "finished", "async receiver", f"left {path}")]
        with Connection(each) as connection:
            connection.ask(head(path, method=method))
        each.rest()
        each.wait_until_said("async receiver", times=before[2] + 1)
        after = [len(each.said(word)) for word in ("closed", "finished", "async receiver", f"left {path}")]
        assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 1, 1]
        assert each.said("async receiver")[-1] == ["True"]


@pytest.mark.parametrize(
    "request_",
    [head("/fail/exit/"), head("/async/fail/exit/"), head("/echo/", "X-Urlconf: no_urls")],
    ids=["exit", "async exit", "no such URLconf"],
)
def test_a_failure_that_django_lets_through_ends_no_thread(sites: list[Site], request_: bytes) -> None:
    """Django's handler never says that such a request has finished, so that this comes after those who count."""
    for _ in range(3):
        assert compare(sites, request_).status == 500
    assert compare(sites, head("/echo/")).status == 200


def test_pages_for_developers() -> None:
    """They differ in their frames, numbers and times."""
    for handler in ("django", "ours"):
        with site(handler, DEBUG="1") as server, Connection(server) as connection:
            failed = connection.ask(head("/fail/error/?a=<b>", "Cookie: word=milk"))
            page = failed.body.decode()
            assert failed.status == 500
            for words in ("this view fails", "views.fail", "a=%3Cb%3E", "milk", "ValueError", "Traceback"):
                assert words in page
            found = [(connection.ask(head(path, host=host)), words) for path, host, words in [
                ("/nowhere/", "h", "Page not found at /nowhere/"), ("/echo/", "evil.example", "DisallowedHost"),
                ("/async/fail/error/", "h", "views.async_fail"), ("/fail/suspicious/", "h", "traps"),
            ]]  # fmt: skip
            assert [answer.status for answer, _ in found] == [404, 400, 500, 400]
            for answer, words in found:
                assert words in answer.body.decode()
