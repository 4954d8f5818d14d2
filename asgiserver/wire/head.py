"""The head of a request: its checks, and its meaning (RFC 9110, RFC 9112).

Requests are smuggled where two servers in a row read the same bytes differently. A head that all parsers read alike
needs no parser: :func:`plain_request` takes it apart. Any other head goes to h11, which is lenient in places: so the
raw head passes :func:`check_head` and :func:`check_framing` before h11 sees it, and the fields that h11 made of it pass
:func:`check_lines`. The tests compare what both ways read.
"""

from __future__ import annotations

import re

from ..asgi.scope import CHUNKED, Request, replace_host
from ..errors import RequestError
from .handshake import is_upgrade

__all__ = [
    "METHODS", "TEXT", "check_fields", "check_framing", "check_head", "check_lines", "check_target_size",
    "is_authority", "parsed_request", "plain_request", "request", "tokens",
]  # fmt: skip

#: The bytes that a value may have: printable ASCII, HTAB, and obs-text (RFC 9110 §5.5) without 0x85, which
#: Unicode-aware parsers behind us take for a line end (CVE-2026-44546).
TEXT = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x85), *range(0x86, 0x100)])
_LINES = TEXT + b"\r\n"
#: A request line that all parsers read alike: the target is in origin-form and has no fragment.
_plain_line = re.compile(rb'([A-Z]{1,20}) (/[!"$-~]*) HTTP/1\.([01])(?=\r\n)').match
#: A field line that, taken alone, all parsers read alike. No name has an underscore: :func:`request` drops those.
_plain_fields = re.compile(
    rb"\r\n([!#$%&'*+\-.^`|~0-9A-Za-z]++): *+([ -~\x80-\x84\x86-\xff]*+)(?<! )(?=\r\n)"
).findall  # fmt: skip
_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding):([^\r]*)", re.IGNORECASE)
_MINOR_VERSION = re.compile(rb"HTTP/1\.[0-9]\Z")
_VERSION = re.compile(rb"HTTP/[0-9]+(\.[0-9]+)?\Z")
#: True for ``host`` or ``host:port`` (RFC 9110 §7.2).
is_authority = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?\Z").match
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)\Z", re.IGNORECASE)
#: Most bytes of a method; the longest that is registered has 17.
_METHOD_SIZE = 64
_DIGITS = re.compile(rb"[0-9]{1,18}\Z")
_FOLD = re.compile(rb"\n[ \t]")
_TWO_LENGTHS = "The request has more than one Content-Length."
_LENGTH_AND_CODING = "A request must not have both Content-Length and Transfer-Encoding."
_FOLDED = "The request has a folded field line."
#: Makes a named tuple without the ``__new__`` that ``NamedTuple`` generates, which is slower.
_tuple = tuple.__new__
#: The fields that say what a server has to do with a request.
_SPECIAL = frozenset([b"connection", b"content-length", b"expect", b"te", b"transfer-encoding", b"upgrade"])
_KNOWN = _SPECIAL | {b"host"}
#: The methods of RFC 9110 §9 and RFC 5789, which need no checks; CONNECT is not among them.
METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH")}


def check_fields(block: bytes) -> None:
    """Refuse control bytes, line ends other than CRLF, and folded lines (RFC 9112 §2.2, §5.2).

    :param block: whole lines of a trailer section with their CRLF.
    :raises RequestError: 400.
    """
    _check_line_ends(block)
    if _FOLD.search(block):
        raise RequestError(400, _FOLDED)


def _check_line_ends(block: bytes) -> int:
    """Refuse control bytes and line ends other than CRLF; return the number of lines."""
    if block.translate(None, _LINES):
        raise RequestError(400, "The request has a control character in its head.")
    lines = block.count(b"\r\n")
    if block.count(b"\n") != lines or block.count(b"\r") != lines:
        raise RequestError(400, "The request's lines must end in CRLF.")
    return lines


def check_head(head: bytes, limit_count: int) -> tuple[bytes, bytes]:
    """Check a whole head, from its first byte to the empty line, before a parser reads it.

    :param limit_count: most field lines.
    :returns: the method and the version, as sent.
    :raises RequestError: 400, 431, or 505 for a version other than 1.x.
    """
    if _check_line_ends(head) > limit_count + 2:
        raise RequestError(431, f"The request has more than {limit_count} field lines.")
    parts = head[: head.find(b"\r")].split(b" ")
    if len(parts) != 3:
        raise RequestError(400, "The request line must be a method, a target and a version.")
    method, target, version = parts
    if version != b"HTTP/1.1" and not _MINOR_VERSION.match(version):
        if _VERSION.match(version):
            raise RequestError(505, "Only HTTP/1.0 and HTTP/1.1 are spoken here.")
        raise RequestError(400, "The request line must end in HTTP/1.0 or HTTP/1.1.")
    if not target.isascii():
        raise RequestError(400, "The request's target must be ASCII.")
    return method, version


def check_lines(head: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse a head with more or fewer lines than the fields that a parser made of it: one is folded (RFC 9112 §5.2).

    :raises RequestError: 400.
    """
    if len(headers) + 2 != head.count(b"\n"):
        raise RequestError(400, _FOLDED)


def check_framing(head: bytes) -> None:
    """Refuse folded lines, and framing that a parser may merge into one length, or answer with a status unlike ours.

    :raises RequestError: 400 or 501.
    """
    if _FOLD.search(head):
        raise RequestError(400, _FOLDED)
    fields = _FRAMING.findall(head)
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    if len(lengths) > 1 or lengths and b"," in lengths[0]:
        raise RequestError(400, _TWO_LENGTHS)
    if lengths and len(fields) > len(lengths):
        raise RequestError(400, _LENGTH_AND_CODING)
    if len(fields) > len(lengths):
        codings = b",".join(value for name, value in fields if name.lower() != b"content-length")
        if b"\t" in codings:
            # RFC 9110 §5.5 allows tabs around a value, but parsers disagree about them here, and no client sends one.
            raise RequestError(400, "The request's Transfer-Encoding has a tab in it.")
        _check_codings(codings)


def check_target_size(size: int, limit: int) -> None:
    """Refuse a target of more than ``limit`` bytes (RFC 9110 §15.5.15).

    :raises RequestError: 414.
    """
    if size > limit:
        raise RequestError(414, f"The request's target is longer than {limit} bytes.")


def plain_request(head: bytes, limit_count: int) -> Request | None:
    """Read a whole head in one pass; None when there is anything in it that a parser has to judge.

    :param head: from its first byte to the empty line.
    :param limit_count: most field lines.
    :raises RequestError: as of :func:`request`.
    """
    line = _plain_line(head)
    if line is None:
        return None
    fields = _plain_fields(head, line.end())
    # A line that was not found has something that no plain line has, such as a control character or a fold.
    if len(fields) != head.count(b"\n") - 2 or len(fields) > limit_count:
        return None
    headers = [(name.lower(), value) for name, value in fields]
    known = dict(headers)
    if b"transfer-encoding" in known and known[b"transfer-encoding"] != b"chunked":
        return None
    name, target, minor = line.groups()
    method = METHODS.get(name)
    if method is None:
        return None
    http_version = "1.1" if minor == b"1" else "1.0"
    if len(known) != len(headers):
        known = _joined(headers)
    elif _SPECIAL.isdisjoint(known):
        # Fast path: a plain GET.
        host = known.get(b"host")
        if host is None or not is_authority(host):
            _host(known, http_version)
        return _tuple(Request, (method, target, headers, http_version, 0, minor == b"1", False, False, False, False))
    return _request(name, target, headers, known, http_version)


def parsed_request(head: bytes, limit_count: int) -> Request:
    """Read a whole head by h11, and check what h11 is lenient about.

    :param head: from its first byte to the empty line.
    :param limit_count: most field lines.
    :raises RequestError: the head is malformed, or asks for something unsupported.
    """
    # Imported here, as few heads need it.
    import h11

    check_head(head, limit_count)
    check_framing(head)
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head))
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        reason = "The request must have one Host." if "Host" in str(error) else "The request's head is malformed."
        raise RequestError(error.error_status_hint, reason) from error
    assert isinstance(event, h11.Request)
    headers = list(event.headers)
    check_lines(head, headers)
    return request(event.method, event.target, headers, "1.0" if event.http_version == b"1.0" else "1.1")


def request(
    method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], http_version: str, unsized: int = 0
) -> Request:
    """Make a request of a parsed head, without the fields whose names have an underscore.

    CGI and WSGI map "-" and "_" to the same variable, so a client could pass off x_real_ip for the x-real-ip that a
    proxy sets (CVE-2015-0219); Daphne drops such fields too.

    :param headers: names in lower case.
    :param unsized: the size of a body that no field tells.
    :raises RequestError: 400, 417 or 501.
    """
    known = dict(headers)
    kept = headers
    if b"_" in b"".join(known):
        kept = [field for field in headers if b"_" not in field[0]]
    if len(known) != len(headers):
        known = _joined(headers)
    return _request(method, target, kept, known, http_version, unsized)


def _request(
    method: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    known: dict[bytes, bytes],
    http_version: str,
    unsized: int = 0,
) -> Request:
    """Make a request of the fields that are kept.

    :param known: the fields of :data:`_KNOWN`, as :func:`_joined` makes them; others may be among them.
    """
    # The framing comes first: the answer to a broken one must not depend on what else is wrong.
    body_size = _body_size(known, http_version, unsized)
    text = METHODS.get(method) or _method(method)
    host = _host(known, http_version)
    if not target.startswith(b"/") or b"#" in target:
        target, authority = _target(method, target)
        if authority is not None and authority != host:
            # RFC 9112 §3.2.2: the authority of an absolute-form target replaces the Host field.
            headers = replace_host(headers, authority)
    keep_alive = _keep_alive(known, http_version)
    expects_continue = body_size != 0 and _expects_continue(known, http_version)
    upgrade = b"upgrade" in known and is_upgrade(text, http_version, headers)
    # RFC 9110 §10.1.4: this member has no weight.
    trailers = b"te" in known and http_version != "1.0" and b"trailers" in tokens(known[b"te"])
    # RFC 8297 §3: some clients of HTTP/1.1 take any response for the final one.
    early_hints = http_version == "2"
    end = keep_alive, expects_continue, upgrade, trailers, early_hints
    return _tuple(Request, (text, target, headers, http_version, body_size, *end))


def _joined(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The fields of :data:`_KNOWN`; the values of several lines of one name are joined."""
    known: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _KNOWN:
            # A valid Host has no space, so a space shows that there are several.
            known[name] = known[name] + (b" " if name == b"host" else b",") + value if name in known else value
    return known


def _method(method: bytes) -> str:
    """A method that is not among the usual ones (RFC 9110 §9.1)."""
    if not method.isupper():
        raise RequestError(400, "The request's method must be in upper case.")
    if len(method) > _METHOD_SIZE:
        # RFC 9112 §3: 501 for a method that is longer than any that is implemented.
        raise RequestError(501, "The request's method is too long.")
    if method == b"CONNECT":
        raise RequestError(501, "This server is no proxy.")
    return method.decode("ascii")


def tokens(value: bytes) -> list[bytes]:
    """The members of a comma-separated list of tokens, in lower case (RFC 9110 §5.6.1)."""
    return [part.strip(b" \t").lower() for part in value.split(b",")]


def _host(known: dict[bytes, bytes], http_version: str) -> bytes | None:
    host = known.get(b"host")
    if host is None:
        if http_version != "1.0":
            raise RequestError(400, "An HTTP/1.1 request must have a Host (RFC 9112 section 3.2).")
    elif b" " in host:
        raise RequestError(400, "The request has more than one Host.")
    elif not is_authority(host):
        raise RequestError(400, "The request's Host is not valid.")
    return host


def _target(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """The origin-form of a target and, from an absolute-form, its authority (RFC 9112 §3.2)."""
    if b"#" in target:
        raise RequestError(400, "The request's target must have no fragment.")
    if target.startswith(b"/"):
        return target, None
    if target == b"*" and method == b"OPTIONS":
        return target, None
    absolute = _ABSOLUTE.match(target)
    if absolute is None or not absolute[1] or not is_authority(absolute[1]):
        raise RequestError(400, "The request's target is neither a path nor an http URL.")
    path = absolute[2]
    return path if path.startswith(b"/") else b"/" + path, absolute[1]


def _body_size(known: dict[bytes, bytes], http_version: str, unsized: int) -> int:
    """How the body is delimited (RFC 9112 §6.3); framing that other servers may read differently is refused."""
    coding, length = known.get(b"transfer-encoding"), known.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise RequestError(400, _LENGTH_AND_CODING)
        _check_codings(coding)
        if http_version == "1.0":
            raise RequestError(400, "HTTP/1.0 has no Transfer-Encoding.")
        return CHUNKED
    if length is None:
        return unsized
    if b"," in length:
        raise RequestError(400, _TWO_LENGTHS)
    if not _DIGITS.match(length):
        raise RequestError(400, "The request's Content-Length is not a number.")
    return int(length)


def _check_codings(value: bytes) -> None:
    """Refuse all transfer codings but a single ``chunked`` (RFC 9112 §6.1)."""
    codings = tokens(value)
    if b"" in codings:
        raise RequestError(400, "The request's Transfer-Encoding has an empty member.")
    if codings == [b"chunked"]:
        return
    if b"chunked" in codings and (codings[-1] != b"chunked" or codings.count(b"chunked") > 1):
        raise RequestError(400, "The transfer coding chunked must be the last and stand once.")
    raise RequestError(501, "Of the transfer codings only chunked is supported.")


def _keep_alive(known: dict[bytes, bytes], http_version: str) -> bool:
    value = known.get(b"connection")
    if value is None:
        return http_version != "1.0"
    options = tokens(value)
    return b"close" not in options and (http_version != "1.0" or b"keep-alive" in options)


def _expects_continue(known: dict[bytes, bytes], http_version: str) -> bool:
    expectation = known.get(b"expect")
    if expectation is None or http_version == "1.0":
        return False
    if expectation.lower() != b"100-continue":
        raise RequestError(417, "The only expectation that is supported is 100-continue.")
    return True
