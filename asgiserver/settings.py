"""Every setting has its one home here: name, default, unit, bounds, one sentence.

The command line's flags, the environment's variables, the file's keys, the reference's table, and validation derive
from the fields of :class:`Settings`. A setting is called alike everywhere, by its long flag. Each of its
:func:`spellings` is taken everywhere too, but :class:`Settings` itself knows the fields' names alone.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, get_type_hints

from .errors import SettingsError
from .foreign_flags import advice, nearest

__all__ = [
    "BIND", "DAPHNE_KEYWORDS", "LOGGING", "PROXY_PEERS", "RELOAD", "TLS", "TRUSTED_PEERS", "WORKERS", "Info",
    "Settings", "checked", "flags", "information", "parse", "spellings", "thread_count", "type_hints", "variable_of",
]  # fmt: skip


class Info(NamedTuple):
    """What is known of a setting besides its name, type and default.

    :param text: one sentence for ``--help`` and the reference.
    :param group: the heading it stands under.
    :param unit: ``"s"``, ``"bytes"``, ``"octal"``, ``"path"`` or nothing.
    :param flags: those that ``--help`` shows; ``--name-with-dashes`` when empty.
    :param aliases: other names that are taken everywhere, with underscores.
    :param words: names that some values have.
    :param minimum: the least value that is allowed.
    :param maximum: the greatest value that is allowed.
    :param off: what switches the setting off, as None does: ``"zero"`` 0, ``"negative"`` -1, ``"both"`` either of them,
        as with Daphne. No other negative number is allowed then.
    :param choices: the only values that are allowed.
    :param metavar: how ``--help`` shows the value.
    :param command_line: False when only ``Server`` takes it.
    :param secret: the value is never shown.
    """

    text: str
    group: str
    unit: str = ""
    flags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    words: Mapping[str, int] = {}
    minimum: float | None = None
    maximum: float | None = None
    off: str = ""
    choices: tuple[str, ...] = ()
    metavar: str = ""
    command_line: bool = True
    secret: bool = False


def _field(default: Any, group: str, text: str, **more: Any) -> Any:
    info = Info(text, group, **more)
    return dataclasses.field(default=default, metadata={"info": info}, repr=not info.secret)


BIND = "Where to listen"
TLS = "TLS"
APPLICATION = "Application"
DJANGO = "Django"
STOPPING = "Stopping"
HTTP = "HTTP"
TIMES = "Timeouts and least rates"
WEBSOCKET = "WebSocket"
LIMITS = "Limits"
PROXY = "Behind a proxy"
WORKERS = "Workers"
RELOAD = "Reloading"
METRICS = "Metrics"
LOGGING = "Logging"

#: Levels of the log, by the names that other servers and :mod:`logging` have for them.
_LEVELS = {"critical": -2, "error": -1, "warning": 0, "warn": 0, "info": 1, "debug": 2, "trace": 3}

TRUSTED_PEERS = "127.0.0.1", "::1"  # unless others are named
PROXY_PEERS = *TRUSTED_PEERS, "unix"

#: Keywords of Daphne's ``Server`` that have another name here.
DAPHNE_KEYWORDS = {
    "websocket_handshake_timeout": "websocket_connect_timeout",
    "proxy_forwarded_address_header": "proxy_headers_host",
    "proxy_forwarded_port_header": "proxy_headers_port",
    "proxy_forwarded_proto_header": "proxy_headers_proto",
}
#: The values of settings that stand for the None of Daphne's ``Server``: no limit, and no Server field.
_DAPHNE_NONE = {"websocket_max_message_size": 0, "websocket_max_frame_size": 0, "server_name": ""}
#: Settings that mean nothing without TLS.
_NEEDS_CERTIFICATE = (
    "ssl_keyfile", "ssl_keyfile_password", "ssl_keyfile_password_file", "ssl_ca_certs",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a server. Immutable; checked when it is made.

    :raises SettingsError: when a value has the wrong type or is out of bounds; one line that names the setting.
    """

    host: str | None = _field(None, BIND, "Address or host name to listen on; alone it means port 8000.",
                              flags=("-b", "--host"), aliases=("bind",), metavar="HOST")
    port: int | None = _field(None, BIND, "TCP port to listen on, 0 for any free one; alone it means 127.0.0.1.",
                              flags=("-p", "--port"), minimum=0, maximum=65535)
    unix_socket: str | None = _field(None, BIND, "Path of a unix socket to listen on.",
                                     flags=("-u", "--unix-socket"), unit="path", metavar="PATH")
    unix_socket_mode: int = _field(0o666, BIND, "Permissions of the unix socket.", unit="octal", minimum=0,
                                   maximum=0o777)
    file_descriptor: int | None = _field(None, BIND, "Inherited listening socket, of any family.",
                                         flags=("--fd",), minimum=0, metavar="FD")
    endpoints: tuple[str, ...] = _field((), BIND, "Twisted endpoint description; may be given several times.",
                                        flags=("-e", "--endpoint"), metavar="ENDPOINT")
    backlog: int = _field(2048, BIND, "Connections that the kernel keeps until they are accepted.", minimum=1,
                          maximum=65535)

    ssl_certfile: tuple[str, ...] = _field(
        (), TLS, "Certificate chain in PEM; serves TLS on the host and port, and on haproxy:tcp: and haproxy:tcp6: "
        "endpoints. Of several, the name that a client asks for chooses one; the first is the default.", unit="path",
        metavar="PATH")
    ssl_keyfile: tuple[str, ...] = _field(
        (), TLS, "Private key in PEM, one for each certificate; by default looked for in the certificate's file.",
        unit="path", metavar="PATH")
    ssl_keyfile_password: str | None = _field(
        None, TLS, "Password of encrypted keys; on the command line every user of the machine can see it.",
        metavar="TEXT", secret=True)
    ssl_keyfile_password_file: str | None = _field(
        None, TLS, "File whose first line is the password of encrypted keys.", unit="path", metavar="PATH")
    ssl_ca_certs: str | None = _field(None, TLS, "Authorities in PEM that clients' certificates are checked against.",
                                      unit="path", metavar="PATH")
    ssl_cert_reqs: str = _field("auto", TLS, "Whether clients need a certificate of these authorities; auto: required "
                                "where ssl-ca-certs is given.", choices=("auto", "none", "optional", "required"))
    ssl_min_version: str = _field("TLSv1.2", TLS, "Oldest version that is spoken.", choices=("TLSv1.2", "TLSv1.3"))
    ssl_ciphers: str | None = _field(None, TLS, "Ciphers for TLS 1.2 as OpenSSL writes them; by default those with "
                                     "forward secrecy and authenticated encryption.", metavar="CIPHERS")
    ssl_handshake_timeout: float | None = _field(10.0, TLS, "Time for a new connection to finish the TLS handshake.",
                                                 unit="s", off="zero")
    redirect_to_https: int | None = _field(
        None, TLS, "Second port of the host, without TLS, that answers each request 308 with the https address; 0 for "
        "any free one.", minimum=0, maximum=65535, metavar="PORT")

    interface: str = _field("auto", APPLICATION, "What the application is; auto tells ASGI 2 from 3.",
                            choices=("auto", "asgi3", "asgi2", "wsgi"))
    factory: bool = _field(False, APPLICATION, "Call the imported object without arguments to get the application.")
    app_dir: str = _field(".", APPLICATION, "Folder put first on the import path.", unit="path",
                          metavar="DIR")
    root_path: str = _field("", APPLICATION, "Public path of the application, the scope's root_path; put in front of "
                            "paths that come without it.", metavar="PATH")
    lifespan: str = _field("auto", APPLICATION, "Run the application's lifespan: if it has one, always, or never.",
                           choices=("auto", "on", "off"))
    lifespan_startup_timeout: float | None = _field(
        60.0, APPLICATION, "Time for the application to start; -1 for no limit.", unit="s", off="negative")

    django: str = _field("auto", DJANGO, "Serve a Django project's sync views the short way, or as Django does.",
                         choices=("auto", "off"))
    django_threads: int | None = _field(None, DJANGO, "Sync views that run at a time; by default ASGI_THREADS, "
                                        "or 40.", minimum=1, maximum=10000)

    lifespan_shutdown_timeout: float | None = _field(
        10.0, STOPPING, "Time for the application to shut down; -1 for no limit.", unit="s", off="negative")
    graceful_timeout: float | None = _field(10.0, STOPPING,
                                            "Time for running requests to finish after a stop signal; "
                                            "-1 for no limit.", unit="s", off="negative")
    shutdown_delay: float = _field(0.0, STOPPING,
                                   "Time after a stop signal in which all goes on but /readyz of --metrics, so that a "
                                   "load balancer looks elsewhere first.", unit="s", minimum=0)
    graceful_idle: float = _field(0.5, STOPPING,
                                  "Time after a stop signal in which idle connections may still send a request, "
                                  "within the graceful timeout; 0 closes them at once.", unit="s", minimum=0)
    exit_timeout: float | None = _field(
        10.0, STOPPING, "Time for the application's threads to end after the server, then as much for its exit "
        "handlers; -1 for no limit.", unit="s", off="negative")
    application_close_timeout: float | None = _field(
        10.0, STOPPING, "Time an application may run on after its client has left before it is cancelled; "
        "-1 for no limit.", unit="s", off="negative")

    loop: str = _field("auto", HTTP, "Event loop that the server makes; auto is uvloop where it is installed.",
                       choices=("auto", "asyncio", "uvloop"))
    server_name: str = _field("asgiserver", HTTP, "Value of the Server header; empty for none.",
                              flags=("-s", "--server-name"), metavar="NAME")
    headers: tuple[str, ...] = _field((), HTTP,
                                      "Header NAME:VALUE added to each response that lacks it; may be given "
                                      "several times.",
                                      flags=("--header",), metavar="NAME:VALUE")
    http2: str = _field("auto", HTTP, "HTTP/2 where a client asks for it by TLS, or by its first bytes without TLS; or "
                        "HTTP/1 alone.", choices=("auto", "off"))
    http_timeout: float | None = _field(None, TIMES,
                                        "Greatest age of a request: 503 before the response began, else cut off.",
                                        flags=("-t", "--http-timeout"), unit="s", off="zero")
    first_byte_timeout: float | None = _field(20.0, TIMES, "Time for a new connection to send its first byte.",
                                              unit="s", off="zero")
    head_timeout: float | None = _field(20.0, TIMES, "Time from the first byte of a request's headers to their last.",
                                        unit="s", off="zero")
    keep_alive_timeout: float | None = _field(60.0, TIMES, "Time a connection may stay idle between requests.",
                                              unit="s", off="zero")
    body_timeout: float | None = _field(60.0, TIMES, "Time between two pieces of a request's body.", unit="s",
                                        off="zero")
    write_timeout: float | None = _field(60.0, TIMES,
                                         "Time without progress until a client that stopped reading is dropped.",
                                         unit="s", off="zero")
    close_timeout: float = _field(5.0, TIMES, "Time to let a peer take the last bytes before a connection is dropped; "
                                  "one that still sends has it after each read, 30 s in all.", unit="s", minimum=0)
    min_request_rate: int | None = _field(
        240, TIMES, "Least rate of a request's body, in bytes a second, looked at every 10 s; less is answered 408.",
        off="zero")
    min_response_rate: int | None = _field(
        240, TIMES, "Least rate, in bytes a second, at which a client takes what waits for it, looked at every 10 s; "
        "one that takes less is dropped.", off="zero")

    limit_head_size: int = _field(65536, LIMITS, "Size of a request's head, all its headers; more is answered 431.",
                                  unit="bytes", minimum=256)
    limit_head_count: int = _field(100, LIMITS, "Headers of a request; more are answered 431.", minimum=1)
    limit_target_size: int = _field(16384, LIMITS, "Size of a request's URL (its target); more is answered 414.",
                                    unit="bytes", minimum=64)
    limit_body_size: int | None = _field(None, LIMITS, "Size of a request's body; more is answered 413.",
                                         unit="bytes", off="zero")
    http2_max_streams: int = _field(100, LIMITS, "Requests and WebSockets at a time on one connection of HTTP/2.",
                                    minimum=1, maximum=65536)
    limit_unread_body: int = _field(1048576, LIMITS, "Rest of an unread body that is drained to keep the connection.",
                                    unit="bytes", minimum=0)
    limit_connections: int | None = _field(
        16384, LIMITS, "Open connections; more are answered 503, 128 of them at a time.", off="zero")
    limit_concurrency: int | None = _field(None, LIMITS, "Requests and WebSockets at a time; more are answered 503.",
                                           off="zero")
    request_buffer_size: int = _field(65536, LIMITS,
                                      "Body or messages kept for an application that does not read them, "
                                      "before the peer is stopped; one read may bring more, and over HTTP/2 1 MiB.",
                                      unit="bytes", minimum=1)
    pipeline_buffer_size: int = _field(65536, LIMITS, "Requests read ahead of the one that is being answered.",
                                       unit="bytes", minimum=1024)

    websocket_timeout: float | None = _field(86400.0, WEBSOCKET, "Longest life of a WebSocket; -1 for no limit.",
                                             flags=("--websocket_timeout", "--websocket-timeout"), unit="s",
                                             off="both")
    websocket_connect_timeout: float | None = _field(
        5.0, WEBSOCKET, "Time for the application to accept a WebSocket; -1 for no limit.",
        flags=("--websocket_connect_timeout", "--websocket-connect-timeout"), unit="s", off="both")
    websocket_close_timeout: float = _field(10.0, WEBSOCKET, "Time for the peer to answer a close frame.", unit="s",
                                            minimum=0)
    ping_interval: float | None = _field(20.0, WEBSOCKET, "Idle time before a ping is sent; 0 for none.", unit="s",
                                         off="zero")
    ping_timeout: float | None = _field(30.0, WEBSOCKET,
                                        "Time for the answer to a ping before the WebSocket is dropped.",
                                        unit="s", off="zero")
    websocket_max_message_size: int = _field(1048576, WEBSOCKET, "Size of a message, after inflation; 0 for no limit.",
                                             unit="bytes", minimum=0)
    websocket_max_frame_size: int = _field(1048576, WEBSOCKET, "Size of a frame; 0 for no limit.", unit="bytes",
                                           minimum=0)
    websocket_compression: bool = _field(True, WEBSOCKET,
                                         "Offer permessage-deflate (RFC 7692) to clients that ask for it.")

    proxy_headers: bool = _field(False, PROXY, "Take client and scheme from the forwarding headers of trusted peers.")
    forwarded_allow_ips: tuple[str, ...] = _field(
        TRUSTED_PEERS, PROXY, "Trusted peers: addresses, networks, unix, or *, with commas between.",
        metavar="LIST")
    proxy_allow_ips: tuple[str, ...] = _field(
        PROXY_PEERS, PROXY, "Who may connect to a haproxy: endpoint and announce a client, in the same notation.",
        metavar="LIST")
    proxy_headers_host: str | None = _field(None, PROXY, "Header with the client's address, X-Forwarded-For by "
                                            "default; Forwarded for RFC 7239 alone.", metavar="NAME")
    proxy_headers_port: str | None = _field(None, PROXY, "Header with the client's port, X-Forwarded-Port by default.",
                                            metavar="NAME")
    proxy_headers_proto: str | None = _field(None, PROXY,
                                             "Header with the client's scheme, X-Forwarded-Proto by default.",
                                             metavar="NAME")

    workers: int | None = _field(None, WORKERS, "Processes that serve, under one that watches them; 0 for one for each "
                                 "core. WEB_CONCURRENCY is read too.", flags=("-w", "--workers"), minimum=0,
                                 maximum=256)
    preload: str = _field("auto", WORKERS, "Import the application once and fork the workers: unless the import leaves "
                          "threads, sockets or files behind, always, or never.", choices=("auto", "on", "off"))
    worker_timeout: float | None = _field(60.0, WORKERS, "Time for which a worker's event loop may be blocked before "
                                          "the worker is replaced; 0 for no limit.", unit="s", off="zero")
    worker_start_timeout: float | None = _field(120.0, WORKERS, "Time for a worker to start, and for the import; 0 for "
                                                "no limit.", unit="s", off="zero")
    max_requests: int | None = _field(None, WORKERS, "Requests and WebSockets after which a worker is replaced.",
                                      off="zero")
    max_requests_jitter: int = _field(0, WORKERS, "Most that is added to max_requests, at random for each worker.",
                                      minimum=0)
    max_memory: int | None = _field(None, WORKERS, "Memory, as its proportional share (PSS), above which a worker is "
                                    "replaced; on Linux.", unit="bytes", off="zero")
    max_lifetime: float | None = _field(None, WORKERS, "Age at which a worker is replaced, give or take a tenth.",
                                        unit="s", off="zero")
    drain_timeout: float | None = _field(30.0, WORKERS, "Time for the clients of a worker that is replaced to leave, "
                                         "before its WebSockets are closed; -1 for no limit.", unit="s", off="negative")
    drain_spread: float = _field(10.0, WORKERS, "Time over which these WebSockets are closed.", unit="s", minimum=0)
    pid_file: str | None = _field(None, WORKERS, "File for the process's number; also without workers.",
                                  unit="path", metavar="PATH")

    reload: bool = _field(False, RELOAD, "For development: serve by one worker, and by another as soon as the code has "
                          "changed.")
    reload_dir: tuple[str, ...] = _field((".",), RELOAD, "Folder that is watched, with all below it; may be given "
                                         "several times.", unit="path", metavar="DIR")
    reload_include: tuple[str, ...] = _field((), RELOAD, "Files to watch besides *.py; may be given several times.",
                                             metavar="PATTERN")
    reload_exclude: tuple[str, ...] = _field(
        (), RELOAD, "Files and folders not to watch, besides .*, *.pyc, ~*, node_modules and virtual environments; may "
        "be given several times.", metavar="PATTERN")
    metrics: tuple[str, ...] = _field(
        (), METRICS, "Endpoint description, like tcp:9100:interface=127.0.0.1 or unix:/run/monitor, of a server of its "
        "own with /metrics for Prometheus, /healthz and /readyz; may be given several times.", metavar="ENDPOINT")

    verbosity: int = _field(1, LOGGING, "What is logged: 0 or warning, 1 or info, 2 or debug, 3 or trace, which is "
                            "also the event loop's debug, or error or critical alone. --log-level is the same.",
                            flags=("-v", "--verbosity"), aliases=("log_level",), words=_LEVELS, minimum=-2, maximum=3,
                            metavar="LEVEL")
    access_log: str | None = _field(None, LOGGING, "File for the access log, - for standard output, where it goes "
                                    "by default but below -v 1; empty for none.", unit="path", metavar="FILE")
    access_log_format: str = _field("auto", LOGGING, "daphne, common, combined, terminal, json, or a format of your "
                                    "own like '%(client)s %(status)s'; auto: json where log-format is, terminal on a "
                                    "terminal, else daphne.", metavar="FORMAT")
    log_format: str = _field("text", LOGGING, "Lines of the server's log: text, or JSON objects.",
                             choices=("text", "json"))
    log_fmt: str = _field("%(asctime)-15s %(levelname)-8s %(message)s", LOGGING, "Format of these lines of text.",
                          metavar="FORMAT")
    log_config: str | None = _field(None, LOGGING, "Logging configuration: a dictConfig in JSON, TOML or, with PyYAML, "
                                    "YAML, or a fileConfig in INI.",
                                    unit="path", metavar="FILE")
    slow_request_log: float | None = _field(None, LOGGING, "Time after which a request that is still under way is "
                                            "logged with where it is, and once more at its end.", unit="s", off="zero")

    def __post_init__(self) -> None:
        for name in type_hints():
            object.__setattr__(self, name, checked(name, getattr(self, name)))
        for name in _NEEDS_CERTIFICATE:
            if getattr(self, name) not in (None, ()) and not self.ssl_certfile:
                raise SettingsError(f"{name} needs ssl_certfile beside it", name, "ssl_certfile")
        keys, certificates = len(self.ssl_keyfile), len(self.ssl_certfile)
        if keys not in (0, certificates):
            message = f"ssl_keyfile: expected one for each ssl_certfile, got {keys} for {certificates}"
            raise SettingsError(message, "ssl_keyfile", "ssl_certfile")
        if self.ssl_keyfile_password is not None and self.ssl_keyfile_password_file is not None:
            raise _only_one("ssl_keyfile_password", "ssl_keyfile_password_file")
        if self.ssl_ca_certs is None and self.ssl_cert_reqs in ("optional", "required"):
            raise SettingsError("ssl_cert_reqs needs ssl_ca_certs beside it", "ssl_cert_reqs", "ssl_ca_certs")
        if self.reload and self.workers is not None:
            raise _only_one("reload", "workers")
        if self.log_config is not None and self.log_format != "text":
            raise _only_one("log_format", "log_config")

    @classmethod
    def from_keywords(cls, **keywords: Any) -> Settings:
        """Make settings from keywords, Daphne's names among them; raises SettingsError as the class itself does."""
        return cls(**cls.named(keywords))

    @classmethod
    def named(cls, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """``keywords`` under the names of their settings.

        The keywords ``proxy_forwarded_*_header`` of Daphne's ``Server`` also turn ``proxy_headers`` on. Daphne then
        trusts every peer; here only those of ``forwarded_allow_ips`` are trusted.

        :raises SettingsError: a keyword is not a setting.
        """
        values: dict[str, Any] = {}
        for keyword, value in keywords.items():
            name = DAPHNE_KEYWORDS.get(keyword) or _names().get(keyword)
            if name is None:
                flag = "--" + keyword.replace("_", "-")
                known = ["--" + spelling.replace("_", "-") for spelling in _names()]
                raise SettingsError(f"unknown setting {keyword!r}{advice(flag, known)}")
            if name == "websocket_connect_timeout" and name in values:
                # Daphne has two timeouts for the one wait here, of which the shorter one counts.
                limits = [seconds for seconds in (value, values[name]) if seconds is not None and seconds > 0]
                value = min(limits, default=None)
            if keyword.startswith("proxy_forwarded_") and value is not None:
                values["proxy_headers"] = True
            values[name] = _DAPHNE_NONE.get(name) if value is None else value
        return values

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The settings that ``ASGISERVER_<NAME>`` variables give, by name, converted but not yet checked together.

        :raises SettingsError: when a variable's text is not of its setting's type.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for name, kind in type_hints().items():
            variable = variable_of(name, environ)
            if variable is not None:
                text = environ[variable]
                try:
                    values[name] = parse(text, kind, information(name))
                except ValueError as error:
                    hint = ""
                    if text.startswith("tcp://"):
                        hint = "; Kubernetes sets this for a Service called asgiserver: call it something else"
                    raise SettingsError(f"{variable}: {error}{hint}") from None
        return values

    @classmethod
    def unknown_variables(cls, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """The ``ASGISERVER_…`` variables that name no setting, without those that Kubernetes sets for a Service.

        The value of each is the end of a message that has named it: what may have been meant.
        """
        environ = os.environ if environ is None else environ
        known = {_variable(spelling) for spelling in _names()}
        ours = {name for name in environ if name.startswith("ASGISERVER_")}
        unknown = sorted(name for name in ours - known if "_SERVICE_" not in name and "_PORT_" not in name)
        return {name: nearest(name, known) for name in unknown}


def _only_one(name: str, other: str) -> SettingsError:
    return SettingsError(f"{name} and {other}: expected only one of them", name, other)


@cache
def type_hints() -> dict[str, Any]:
    """The type of each setting by its name; the annotations are text, and compiling them takes a while."""
    return get_type_hints(Settings)


def information(name: str) -> Info:
    """What is known of the setting ``name``; KeyError when there is none."""
    info: Info = Settings.__dataclass_fields__[name].metadata["info"]
    return info


def flags(name: str) -> tuple[str, ...]:
    """The flags of a setting that ``--help`` shows, with those that Daphne spells with an underscore."""
    return information(name).flags or ("--" + name.replace("_", "-"),)


@cache
def spellings(name: str) -> tuple[str, ...]:
    """All names of a setting, with underscores; first the one that it is called by."""
    shown = [flag[2:].replace("-", "_") for flag in flags(name) if flag.startswith("--")]
    return tuple(dict.fromkeys([*shown, name, *information(name).aliases]))


@cache
def _names() -> dict[str, str]:
    """The name of each setting by its spellings."""
    return {spelling: name for name in Settings.__dataclass_fields__ for spelling in spellings(name)}


def _variable(spelling: str) -> str:
    return f"ASGISERVER_{spelling.upper()}"


def variable_of(name: str, environ: Mapping[str, str]) -> str | None:
    """The variable that gives a setting; None when there is none.

    :raises SettingsError: two of its spellings are there.
    """
    given = [variable for variable in map(_variable, spellings(name)) if variable in environ]
    if len(given) > 1:
        raise _only_one(*given[:2])
    if not given and name == "workers" and environ.get("WEB_CONCURRENCY"):
        # The variable that hosting platforms set for other servers.
        return "WEB_CONCURRENCY"
    return given[0] if given else None


def parse(text: str, hint: Any, info: Info) -> Any:
    """Turn a flag's or a variable's text into a setting's value.

    :raises ValueError: with what was expected.
    """
    kind = _kind(hint)
    if text.lower() in info.words:
        return info.words[text.lower()]
    if kind is tuple:
        return tuple(shlex.split(text.replace(",", " ") if info.metavar == "LIST" else text))
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError(f"expected yes or no, got {text!r}")
        return _BOOLEANS[text.lower()]
    if kind is str:
        return text
    try:
        return int(text, 8) if info.unit == "octal" else kind(text)
    except ValueError:
        expected = "an octal number" if info.unit == "octal" else _EXPECTED[kind]
        raise ValueError(f"expected {expected}{_or_words(info)}, got {text!r}") from None


def _or_words(info: Info) -> str:
    return f" or one of {', '.join(info.words)}" if info.words else ""


_BOOLEANS = dict.fromkeys(("1", "yes", "true", "on"), True) | dict.fromkeys(("0", "no", "false", "off", ""), False)
_EXPECTED = {int: "a whole number", float: "a number", str: "text", bool: "yes or no", tuple: "a list of texts"}


def _kind(hint: Any) -> type:
    """The one type of a field's annotation, without None and without what a tuple holds."""
    for kind in (bool, int, float, str):
        if hint is kind or kind in getattr(hint, "__args__", ()) and getattr(hint, "__origin__", None) is not tuple:
            return kind
    return tuple


def checked(name: str, value: Any) -> Any:
    """``value`` in the setting's own type, within its bounds, None when it is switched off.

    :raises SettingsError: one line that begins with the setting's name.
    """
    if value is None and name in ("ssl_certfile", "ssl_keyfile"):
        # What other servers' keywords of these names take for no file.
        value = ()
    if name == "access_log" and isinstance(value, bool):
        # What uvicorn's keyword of this name takes.
        value = None if value else ""
    value = _typed(name, value, type_hints()[name], information(name))
    rule = _RULES.get(name)
    return value if rule is None else rule(value)


def _host(host: str | None) -> str | None:
    """None when it is empty, as an unset variable in a script must not open the port to everybody."""
    found = re.fullmatch(r"(unix):(.+)|(\[.*\]|[^:]*):(\d*)", host or "")
    if found:
        path, address, port = found[2], found[3], found[4]
        instead = f"unix_socket {path}" if path else f"host {address or '0.0.0.0'} and port {port}"
        raise SettingsError(f"host: expected an address or a name without the port, got {host!r}: give {instead}")
    return host or None


def _endpoints(name: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what other servers take for an address, and name the description of it."""
    for text in texts:
        found = re.fullmatch(r"(?:https?://)?(?:tcp:(?=.+:))?(?:(\[.*\]|localhost|\*|[\d.]*):)?(\d+)/?", text)
        if found or text.startswith("/"):
            instead = _tcp(found[1], found[2]) if found else f"unix:{text}"
            raise SettingsError(f"{name}: expected a Twisted endpoint description, got {text!r}: write {instead}")
    return texts


def _tcp(host: str | None, port: str) -> str:
    """The description of an address; the port alone is for this machine, as with ``port``."""
    if host in ("", "*", "0.0.0.0"):
        return f"tcp:{port}"
    if host and host.startswith("["):
        address = host[1:-1].replace(":", r"\:")
        return f"'tcp6:{port}:interface={address}'"
    return f"tcp:{port}:interface={'127.0.0.1' if host in (None, 'localhost') else host}"


def _headers(lines: tuple[str, ...]) -> tuple[str, ...]:
    for line in lines:
        if ":" not in line:
            raise SettingsError(f"headers: expected NAME:VALUE, got {line!r}")
    return lines


def _root_path(text: str) -> str:
    """``text`` with one slash at its beginning and none at its end; empty for the root.

    ASGI gives paths decoded, so a percent-encoded root path would never be found in them.
    """
    if re.search("%[0-9A-Fa-f]{2}|[\ud800-\udfff]", text):
        raise SettingsError(f"root_path: expected a decoded path like '/caf\xe9', got {text!r}")
    stripped = text.strip("/")
    return f"/{stripped}" if stripped else ""


_RULES: dict[str, Callable[[Any], Any]] = {
    "host": _host, "headers": _headers, "root_path": _root_path,
    "endpoints": partial(_endpoints, "endpoints"), "metrics": partial(_endpoints, "metrics"),
}  # fmt: skip


_OFF = {"": (), "zero": (0,), "negative": (-1,), "both": (0, -1)}


def _typed(name: str, value: Any, hint: Any, info: Info) -> Any:
    kind: Any = _kind(hint)
    if value is None:
        if type(None) not in getattr(hint, "__args__", ()):
            raise SettingsError(f"{name}: expected {_EXPECTED[kind]}, got None")
        return None
    if info.words and isinstance(value, str):
        value = info.words.get(value.lower(), value)
    if kind is float and type(value) is int:
        value = float(value)
    elif kind is tuple and isinstance(value, str):
        # A comma may stand in an endpoint or a field's value, never in an address.
        value = tuple(value.replace(",", " ").split()) if info.metavar == "LIST" else (value,)
    elif kind is tuple and isinstance(value, (list, set, frozenset)):
        value = tuple(value)
    if type(value) is not kind or kind is tuple and not all(type(part) is str for part in value):
        got = "" if info.secret else f", got {value!r}"
        raise SettingsError(f"{name}: expected {_EXPECTED[kind]}{_or_words(info)}{got}")
    if kind is float and not math.isfinite(value):
        raise SettingsError(f"{name}: expected a finite number, got {value!r}")
    if value in _OFF[info.off]:
        return None
    if info.off and value < 0:
        none = " or ".join(map(str, _OFF[info.off]))
        raise SettingsError(f"{name}: expected {none} for none, or a greater number, got {value!r}")
    if value == "" and info.unit == "path" and name not in ("access_log", "app_dir"):
        # As of a variable that is not set in a script.
        raise SettingsError(f"{name}: expected a path, got ''")
    if info.choices and value not in info.choices:
        raise SettingsError(f"{name}: expected one of {', '.join(info.choices)}, got {value!r}")
    if info.minimum is not None and value < info.minimum:
        raise SettingsError(f"{name}: expected at least {info.minimum}, got {value!r}")
    if info.maximum is not None and value > info.maximum:
        raise SettingsError(f"{name}: expected at most {info.maximum}, got {value!r}")
    return value


def thread_count() -> int | None:
    """The threads that ``ASGI_THREADS`` asks for, None when it says nothing; raises SettingsError when it is wrong."""
    threads = os.environ.get("ASGI_THREADS")
    if threads is not None and (not threads.isdecimal() or int(threads) < 1):
        raise SettingsError(f"ASGI_THREADS: expected a whole number of at least 1, got {threads!r}")
    return None if threads is None else int(threads)
