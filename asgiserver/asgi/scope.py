"""What a wire learned of a request, and the ASGI scope made of it (ASGI HTTP & WebSocket 2.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from .interfaces import Headers, Scope

if TYPE_CHECKING:
    from .forwarded import Forwarding

__all__ = [
    "CHUNKED", "TLS", "Addresses", "Request", "ScopeBuilder", "for_application", "replace_host", "shown_host",
    "unmapped",
]  # fmt: skip

#: The size of a body that is known only at its end.
CHUNKED = -1

#: What may stand in a path as it is, besides letters, digits and ``-._~`` (RFC 3986 §3.3).
_PATH_CHARACTERS = "/!$&'()*+,;=:@"


class Request(NamedTuple):
    """A request's head as a wire read it; nothing derived but what the wire itself needs.

    :param method: an RFC 9110 §9 token, upper case.
    :param target: the origin-form of the target, or ``*`` (RFC 9112 §3.2); no fragment.
    :param headers: field lines in order, names in lower case and without underscores, values stripped, duplicates
        kept; the application may change the list.
    :param http_version: ``"1.0"`` or ``"1.1"``; ``"2"`` from HTTP/2.
    :param body_size: bytes of the body, 0 for none, :data:`CHUNKED` when they are known only at its end.
    :param keep_alive: the peer is ready to use the connection again (RFC 9112 §9.3).
    :param expects_continue: the peer waits for ``100 Continue`` before it sends the body.
    :param upgrade: the request asks for a WebSocket; an extended CONNECT does so too (RFC 8441 §4).
    :param trailers: the peer takes trailers (``TE: trailers``, RFC 9110 §10.1.4).
    :param early_hints: the peer takes informational responses with fields, as of HTTP/2 on (RFC 8297 §3).
    """

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    http_version: str = "1.1"
    body_size: int = 0
    keep_alive: bool = True
    expects_continue: bool = False
    upgrade: bool = False
    trailers: bool = False
    early_hints: bool = False


class TLS(NamedTuple):
    """The ASGI extension ``tls`` (0.2): what a scope says of the TLS connection that ends here.

    :param server_cert: the certificate that the client was shown, in PEM; None when unknown.
    :param client_cert_chain: the client's certificate and those that came with it, in PEM.
    :param client_cert_name: the subject of the client's certificate (RFC 4514).
    :param client_cert_error: what is wrong with that certificate.
    :param tls_version: 0x0303 for TLS 1.2, 0x0304 for TLS 1.3.
    :param cipher_suite: its 16 bits in the RFCs, such as 0x1301.
    """

    server_cert: str | None
    client_cert_chain: tuple[str, ...]
    client_cert_name: str | None
    client_cert_error: str | None
    tls_version: int | None
    cipher_suite: int | None


class Addresses(NamedTuple):
    """The two ends of a connection.

    :param client: address and port of the client, None on a unix socket.
    :param server: address and port, or path and None, that the client has connected to; None when unknown.
    :param secure: TLS ends here, or at a proxy whose PROXY header says so.
    :param announced: a PROXY header has given ``client`` and ``server``.
    :param proxy: address and port of the proxy that sent this header, None on a unix socket.
    :param tls: the details of the TLS that ends here, None without it.
    """

    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    secure: bool
    announced: bool = False
    proxy: tuple[str, int] | None = None
    tls: TLS | None = None

    @property
    def peer(self) -> str:
        """The client, for the log."""
        return shown_host(None) if self.client is None else "{}:{}".format(*self.client)


class ScopeBuilder:
    """Makes the scope of each request.

    :param root_path: the scope's ``root_path``, decoded, without a slash at its end. ASGI's ``path`` contains it. A
        proxy that strips the prefix sends paths without it, so it is put in front of each path that does not begin
        with it.
    :param forwarding: how a trusted proxy's fields are read; None to ignore them.
    :param state: what the lifespan filled; every scope gets a shallow copy of it.
    """

    __slots__ = ("_below", "_forwarding", "_raw_root_path", "_root_path", "_state")

    def __init__(self, root_path: str, forwarding: Forwarding | None, state: dict[str, Any] | None) -> None:
        self._root_path = root_path
        self._below = root_path + "/"
        self._raw_root_path = quote(root_path, safe=_PATH_CHARACTERS).encode("ascii")
        self._forwarding = forwarding
        self._state = state

    def http(self, request: Request, addresses: Addresses) -> Scope:
        """The scope of an HTTP request."""
        method, target, headers, http_version, _, _, _, _, trailers, early_hints = request
        raw_path, _, query_string = target.partition(b"?")
        # Bad UTF-8 becomes U+FFFD; raw_path has the bytes as they were sent.
        path = raw_path.decode("ascii")
        if "%" in path:
            path = unquote(path)
        root_path = self._root_path
        # The target * is no path: it asks about the whole server (RFC 9110 §9.3.7).
        if root_path and path != root_path and not path.startswith(self._below) and raw_path != b"*":
            path, raw_path = root_path + path, self._raw_root_path + raw_path
        client, server, secure, announced, proxy, tls = addresses
        scheme = "https" if secure else "http"
        if self._forwarding is not None:
            peer = proxy if announced else client
            client, scheme, host = self._forwarding.resolve(headers, client, scheme, peer, announced=announced)
            if host is not None:
                headers = replace_host(headers, host)
        extensions: dict[str, Any] = {"http.response.pathsend": {}, "http.response.zerocopysend": {}}
        if trailers:
            extensions["http.response.trailers"] = {}
        if early_hints:
            extensions["http.response.early_hint"] = {}
        if tls is not None:
            extensions["tls"] = tls._asdict()
        scope: dict[str, Any] = {
            "type": "http",
            # Each scope has dicts and lists of its own, since an application may write into them; the client, which
            # the server reads again, is a list in the application's copy alone.
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": http_version,
            "method": method,
            "scheme": scheme,
            "path": path,
            "raw_path": raw_path,
            "query_string": query_string,
            "root_path": root_path,
            "headers": headers,
            "client": client,
            "server": None if server is None else [*server],
            "extensions": extensions,
        }
        if self._state is not None:
            scope["state"] = self._state.copy()
        return scope

    def websocket(self, request: Request, addresses: Addresses, subprotocols: list[str]) -> Scope:
        """The scope of a WebSocket handshake that was checked already."""
        scope = self.http(request, addresses)
        del scope["method"]
        scope["type"] = "websocket"
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["subprotocols"] = subprotocols
        scope["extensions"] = {"websocket.http.response": {}}
        if addresses.tls is not None:
            scope["extensions"]["tls"] = addresses.tls._asdict()
        return scope


def for_application(scope: Scope) -> Scope:
    """A copy of ``scope``, with a list for the client, for the application to write into, as middleware does.

    The server goes on to read its own scope: the request's method decides whether the response has a body (RFC 9110
    §9.3.2), and the log tells what the client has sent.
    """
    copied = {**scope}
    for name in ("client", "subprotocols"):
        if copied.get(name) is not None:
            copied[name] = [*copied[name]]
    return copied


def unmapped(host: str) -> str:
    """``host``, or the IPv4 address in an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2) as the system writes it.

    An IPv6 socket that also takes IPv4 connections gives their addresses in this form.
    """
    plain = host.removeprefix("::ffff:")
    return plain if "." in plain and ":" not in plain else host


def shown_host(peer: tuple[str, int | None] | None) -> str:
    """A peer for the log without its port; None stands for the nameless end of a unix socket."""
    return "a unix socket's peer" if peer is None else peer[0]


def replace_host(headers: Headers, host: bytes) -> list[tuple[bytes, bytes]]:
    """``headers`` with ``host`` as the only Host field, in its place or, when there was none, first."""
    others = [field for field in headers if field[0] != b"host"]
    position = next((index for index, field in enumerate(headers) if field[0] == b"host"), 0)
    return [*others[:position], (b"host", host), *others[position:]]
