"""Messages of the application, turned from dicts into typed replies or into an error that says what was wrong.

This is the border where an application is checked: behind it field names are tokens, values have no control
characters, bodies are ``bytes``. This module knows no state; the exchange checks whether a reply fits the moment. Each
``send()`` passes here, so the checks are single passes of C functions over the bytes.

Keys that ASGI does not name are ignored, as new versions of it may add some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from ..errors import MessageError
from .fields import LOWER, Fields, check_value, fail, iterable, kind_of, parse_fields, shown, wrong
from .files import SendFile, SendPath, parse_file, parse_path
from .tokens import MOST_OF_A_REASON, TCHAR, is_close_code

__all__ = [
    "TYPES", "Accept", "Close", "EarlyHint", "HTTPReply", "ResponseBody", "ResponseStart", "SendBytes", "SendText",
    "Trailers", "message_type", "parse_http", "parse_websocket",
]  # fmt: skip

#: Fields that RFC 9110 §6.5.1 keeps out of trailers, as they are needed before the content: for framing, routing,
#: authentication, controls and the content's format. The connection-specific ones are dropped as in a head.
_NO_TRAILERS = frozenset((
    b"age", b"authorization", b"cache-control", b"content-encoding", b"content-length", b"content-range",
    b"content-type", b"cookie", b"date", b"expect", b"expires", b"host", b"if-match", b"if-modified-since",
    b"if-none-match", b"if-range", b"if-unmodified-since", b"location", b"max-forwards", b"pragma",
    b"proxy-authenticate", b"proxy-authorization", b"range", b"retry-after", b"set-cookie", b"trailer", b"vary",
    b"www-authenticate",
))  # fmt: skip


class ResponseStart(NamedTuple):
    """``http.response.start``, and ``websocket.http.response.start``.

    :param status: 200 to 999.
    :param headers: in the application's order and spelling, without the connection-specific fields.
    :param content_length: what the content-length among ``headers`` says, in bytes.
    :param close: the application asked for ``connection: close``.
    :param trailers: ``http.response.trailers`` follows the body.
    :param names: those of ``headers``, one by one, in lower case.
    """

    status: int
    headers: Fields
    content_length: int | None
    close: bool
    trailers: bool
    names: list[bytes]


class ResponseBody(NamedTuple):
    """``http.response.body``, and ``websocket.http.response.body``; the last one has ``more_body`` False."""

    body: bytes
    more_body: bool


class Trailers(NamedTuple):
    """``http.response.trailers``; the last one has ``more_trailers`` False.

    :param headers: as those of :class:`ResponseStart`; none that RFC 9110 §6.5.1 keeps out of trailers.
    :param names: those of ``headers``, one by one, in lower case.
    """

    headers: Fields
    names: list[bytes]
    more_trailers: bool


class EarlyHint(NamedTuple):
    """``http.response.early_hint``.

    :param headers: a Link field for each of the message's ``links``.
    :param names: those of ``headers``.
    """

    headers: Fields
    names: list[bytes]


class Accept(NamedTuple):
    """``websocket.accept``.

    :param subprotocol: a token; whether the client offered it is not known here.
    :param headers: as those of :class:`ResponseStart`.
    :param names: those of ``headers``, one by one, in lower case.
    """

    subprotocol: str | None
    headers: Fields
    names: list[bytes]


class SendText(NamedTuple):
    """``websocket.send`` with text, which can be encoded as UTF-8."""

    text: str


class SendBytes(NamedTuple):
    """``websocket.send`` with bytes."""

    data: bytes


class Close(NamedTuple):
    """``websocket.close``.

    :param code: one that an endpoint may send.
    :param reason: at most 123 bytes in UTF-8.
    :param error: why the message's code or reason cannot be sent, None when both can. The exchange raises it, but not
        before the accept, where a close becomes a 403 without code or reason.
    """

    code: int
    reason: str
    error: MessageError | None = None


HTTPReply: TypeAlias = ResponseStart | ResponseBody | SendPath | SendFile | Trailers | EarlyHint

#: Makes a named tuple without the function that ``NamedTuple`` writes for it, which takes longer.
_tuple = tuple.__new__


def parse_http(message: Any) -> HTTPReply:
    """Check a message sent in an ``http`` scope.

    :raises MessageError: names the message's type and key, what was expected, and what came.
    """
    # A dict with a known type is all that a sane application sends; message_type() says what is wrong with the rest.
    kind = message.get("type") if type(message) is dict else None
    if kind == "http.response.body":
        body = message.get("body", b"")
        if type(body) is bytes:
            return _tuple(ResponseBody, (body, bool(message.get("more_body"))))
    elif kind == "http.response.start":
        return _start(message)
    reply: HTTPReply = _HTTP[message_type(message, _HTTP)](message)
    return reply


def parse_websocket(message: Any) -> Accept | SendText | SendBytes | Close | ResponseStart | ResponseBody:
    """Check a message sent in a ``websocket`` scope.

    A close reason longer than 123 bytes is cut at a character's boundary: a close with a part of its reason is better
    than an exception in place of the close. A close whose code or reason cannot be sent carries the error.

    :raises MessageError: names the message's type and key, what was expected, and what came.
    """
    reply: Accept | SendText | SendBytes | Close | ResponseStart | ResponseBody
    if type(message) is dict and message.get("type") == "websocket.send":
        return _send(message)  # as in parse_http()
    reply = _WEBSOCKET[message_type(message, _WEBSOCKET)](message)
    return reply


def message_type(message: Any, allowed: Iterable[str]) -> str:
    """The type of a message, which is one of ``allowed``.

    :raises MessageError: ``message`` is no mapping, or its type is another one.
    """
    if not isinstance(message, (dict, Mapping)):
        raise MessageError(f"a message must be a dict, got {kind_of(message)}")
    kind = message.get("type")
    if isinstance(kind, str) and kind in allowed:
        return kind
    expected = ", ".join(allowed)
    if "type" not in message:
        raise MessageError(f'a message must have a "type", one of {expected}')
    raise MessageError(f'"type" of a message must be one of {expected}; got {shown(kind)}')


def _accept(message: Mapping[str, Any]) -> Accept:
    subprotocol = message.get("subprotocol")
    if subprotocol is not None:
        if not isinstance(subprotocol, str):
            wrong(message, "subprotocol", "a str or None", subprotocol)
        if not (subprotocol and subprotocol.isascii() and not subprotocol.encode().translate(LOWER, TCHAR)):
            fail(message, f'"subprotocol" must be a token (RFC 9110 §5.6.2), got {shown(subprotocol)}')
    headers, names, _, _ = parse_fields(message)
    for name in names:
        # RFC 6455 §4.2.2 leaves these to the handshake, RFC 9110 §8.6 forbids a length in a 101.
        if name.startswith(b"sec-websocket-") or name == b"content-length":
            fail(message, f"header {shown(name)} belongs to the server, not to the application")
    return Accept(subprotocol, headers, names)


def _send(message: Mapping[str, Any]) -> SendText | SendBytes:
    data = message.get("bytes")
    text = message.get("text")
    if data is None and type(text) is str and text.isascii():
        return _tuple(SendText, (text,))
    if text is None and type(data) is bytes:
        return _tuple(SendBytes, (data,))
    if data is None and text is None:
        fail(message, 'one of "bytes" and "text" must be given')
    if data is None:
        if not isinstance(text, str):
            wrong(message, "text", "a str", text)
        if not text.isascii():
            _encoded(message, "text", text)
        return SendText(text)
    if text is not None:
        fail(message, 'only one of "bytes" and "text" may be given, got both')
    return SendBytes(data if isinstance(data, bytes) else _as_bytes(message, "bytes", data))


def _close(message: Mapping[str, Any]) -> Close:
    try:
        return Close(_close_code(message), _close_reason(message))
    except MessageError as error:
        return Close(1000, "", error)


def _close_code(message: Mapping[str, Any]) -> int:
    code = message.get("code")
    if code is None:
        return 1000
    if not isinstance(code, int) or isinstance(code, bool):
        wrong(message, "code", "an int", code)
    # RFC 6455 §7.4: 1004, 1005, 1006 and 1015 are never sent, the other codes have no meaning.
    if not is_close_code(code):
        fail(message, f'"code" must be 1000 to 1003, 1007 to 1014, or 3000 to 4999; got {shown(code)}')
    return int(code)


def _close_reason(message: Mapping[str, Any]) -> str:
    reason = message.get("reason")
    if reason is None:
        return ""
    if not isinstance(reason, str):
        wrong(message, "reason", "a str", reason)
    encoded = _encoded(message, "reason", reason)
    return reason if len(encoded) <= MOST_OF_A_REASON else encoded[:MOST_OF_A_REASON].decode("utf-8", "ignore")


def _start(message: Mapping[str, Any]) -> ResponseStart:
    status = message.get("status")
    if type(status) is not int:
        if not isinstance(status, int) or isinstance(status, bool):
            wrong(message, "status", "an int", status)
        status = int(status)
    if not 200 <= status <= 999:
        hint = "; an informational response is no response (RFC 9110 §15.2)" if 100 <= status < 200 else ""
        fail(message, f'"status" must be 200 to 999, got {shown(status)}{hint}')
    headers, names, length, close = parse_fields(message)
    return _tuple(ResponseStart, (status, headers, length, close, bool(message.get("trailers")), names))


def _denial(message: Mapping[str, Any]) -> ResponseStart:
    # ASGI has no trailers in a denial.
    return _start(message)._replace(trailers=False)


def _trailers(message: Mapping[str, Any]) -> Trailers:
    headers, names, _, _ = parse_fields(message)
    for name in names:
        if name in _NO_TRAILERS:
            fail(message, f"header {shown(name)} must not be sent in trailers (RFC 9110 §6.5.1)")
    return Trailers(headers, names, bool(message.get("more_trailers")))


def _early_hint(message: Mapping[str, Any]) -> EarlyHint:
    links = []
    for link in iterable(message, "links", "an iterable of bytes"):
        if not isinstance(link, bytes):
            fail(message, f'each of "links" must be bytes, got {kind_of(link)}')
        check_value(message, b"link", link)
        links.append(bytes(link).strip(b" \t"))
    return EarlyHint([(b"link", link) for link in links], [b"link"] * len(links))


def _body(message: Mapping[str, Any]) -> ResponseBody:
    body = message.get("body", b"")
    if not isinstance(body, bytes):
        body = _as_bytes(message, "body", body)
    return ResponseBody(body, bool(message.get("more_body", False)))


def _as_bytes(message: Mapping[str, Any], key: str, value: Any) -> bytes:
    """A copy of a buffer, as the application may change it after its ``send()`` has returned."""
    if not isinstance(value, (bytearray, memoryview)):
        wrong(message, key, "bytes", value)
    try:
        return bytes(value)
    except ValueError as error:
        # A memoryview that was released.
        fail(message, f'"{key}" cannot be read: {error}')


def _encoded(message: Mapping[str, Any], key: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        fail(message, f'"{key}" cannot be encoded as UTF-8: {error.reason} at character {error.start}')


_HTTP: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "http.response.start": _start,
    "http.response.body": _body,
    "http.response.pathsend": parse_path,
    "http.response.zerocopysend": parse_file,
    "http.response.trailers": _trailers,
    "http.response.early_hint": _early_hint,
}
_WEBSOCKET: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "websocket.accept": _accept,
    "websocket.send": _send,
    "websocket.close": _close,
    "websocket.http.response.start": _denial,
    "websocket.http.response.body": _body,
}
#: The type of the message that each reply was; in a denial ``websocket.`` stands before it.
TYPES = {
    ResponseStart: "http.response.start", ResponseBody: "http.response.body", Accept: "websocket.accept",
    SendPath: "http.response.pathsend", SendFile: "http.response.zerocopysend", Trailers: "http.response.trailers",
    EarlyHint: "http.response.early_hint",
    SendText: "websocket.send", SendBytes: "websocket.send", Close: "websocket.close",
}  # fmt: skip
