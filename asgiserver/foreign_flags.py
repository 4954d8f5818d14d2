"""What to write here for a flag of uvicorn, hypercorn, gunicorn or granian, and the nearest name to one that is wrong.

The table has each of their flags that is none of ours. Where a flag means just what one of ours does the answer is that
flag; it is told, not taken, so that each setting keeps one name. An empty answer: there is nothing like it here.
"""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["FOREIGN_FLAGS", "advice", "nearest"]

_ONE_LOG = "the server's log goes to standard error; --log-config sends it elsewhere"
_NO_DAEMON = "a service manager such as systemd runs a server in the background"
_NO_USER = "a service manager such as systemd sets user and group; it can open a port below 1024, too"
_STRICT = "requests are read strictly, and there is no way round it"
_PROXY = "put haproxy: before an endpoint, like --endpoint haproxy:tcp:8000"
_WEBSOCKETS = "WebSockets are always served"
_ONE_WAY = "there is only one way, leave it out"
_LEAVE_OUT = "it is so in any case, leave it out"
_STATIC = "a proxy serves static files"
_WORKER_CLASS = "each worker runs an event loop; leave it out, or see --loop and --interface"

#: Told by name; :func:`advice` puts "use" before an answer that begins with a dash.
FOREIGN_FLAGS: dict[str, str] = {
    # Where to listen.
    "--uds": "-u/--unix-socket",
    "--uds-permissions": "--unix-socket-mode",
    "--insecure-bind": "--redirect-to-https",
    "--quic-bind": "",
    "--reuse-port": "workers share one socket without it",
    "--proxy-protocol": _PROXY,
    "--proxy-allow-from": "--proxy-allow-ips",
    "--protocol": "",
    "--uwsgi-allow-from": "",
    # TLS.
    "--certfile": "--ssl-certfile",
    "--ssl-certificate": "--ssl-certfile",
    "--keyfile": "--ssl-keyfile",
    "--keyfile-password": "--ssl-keyfile-password-file",
    "--ca-certs": "--ssl-ca-certs",
    "--ssl-ca": "--ssl-ca-certs",
    "--cert-reqs": "--ssl-cert-reqs",
    "--verify-mode": "--ssl-cert-reqs",
    "--ssl-client-verify": "--ssl-cert-reqs required",
    "--no-ssl-client-verify": "--ssl-cert-reqs none",
    "--ssl-crl": "",
    "--ssl-version": "--ssl-min-version",
    "--ssl-protocol-min": "--ssl-min-version",
    "--ciphers": "--ssl-ciphers",
    "--suppress-ragged-eofs": _LEAVE_OUT,
    "--do-handshake-on-connect": _LEAVE_OUT,
    # The application.
    "-c": "--config, a file in TOML",
    "--chdir": "--app-dir, or change the folder before",
    "--working-dir": "--app-dir, or change the folder before",
    "--pythonpath": "--app-dir, or the variable PYTHONPATH",
    "--env-files": "--env-file",
    "--env": "--env-file, or set the variable before the command",
    "--check-config": "--check",
    "--print-config": "--show-settings",
    "--url-path-prefix": "--root-path",
    "--asgi-lifespan": "--lifespan",
    "--asgi-loop": "--loop",
    "--asgi-disconnect-grace-period": "--application-close-timeout",
    "--task-impl": _ONE_WAY,
    "--reset-contextvars": "each request has a copy of the lifespan's context; leave it out",
    "--paste": "",
    "--paster": "",
    "--paste-global": "",
    "--spew": "",
    "--debug": "-v 3, and the application's own switch",
    # HTTP.
    "--http": _ONE_WAY,
    "--http-parser": _ONE_WAY,
    "--http-protocols": _ONE_WAY,
    "--no-server-header": "--no-server-name",
    "--server-header": _LEAVE_OUT,
    "--date-header": _LEAVE_OUT,
    "--no-date-header": "each response has a Date header, as RFC 9110 asks for",
    "--timeout-keep-alive": "--keep-alive-timeout",
    "--keep-alive": "--keep-alive-timeout",
    "--http1-keep-alive": _LEAVE_OUT,
    "--no-http1-keep-alive": "--keep-alive-timeout with a short time",
    "--http1-header-read-timeout": "--head-timeout, in seconds",
    "--http1-buffer-size": "--limit-head-size and --request-buffer-size",
    "--http1-pipeline-flush": _ONE_WAY,
    "--no-http1-pipeline-flush": _ONE_WAY,
    "--h11-max-incomplete-event-size": "--limit-head-size",
    "--limit-request-line": "--limit-target-size",
    "--limit-request-fields": "--limit-head-count",
    "--limit-request-field_size": "--limit-head-size, for all headers together",
    "--read-timeout": "--head-timeout and --body-timeout",
    "--no-sendfile": _ONE_WAY,
    "--permit-obsolete-folding": _STRICT,
    "--permit-unconventional-http-method": _STRICT,
    "--permit-unconventional-http-version": _STRICT,
    "--casefold-http-method": _STRICT,
    "--strip-header-spaces": _STRICT,
    "--header-map": "headers with an underscore in their name are dropped",
    "--forwarder-headers": "headers with an underscore in their name are dropped; see --root-path",
    # HTTP/2.
    "--http2-cleartext": "it is served without TLS, too",
    "--http2-adaptive-window": "",
    "--no-http2-adaptive-window": "",
    "--http2-initial-connection-window-size": "",
    "--http2-initial-stream-window-size": "--request-buffer-size",
    "--http2-initial-window-size": "--request-buffer-size",
    "--http2-keep-alive-interval": "",
    "--http2-keep-alive-timeout": "",
    "--http2-max-concurrent-streams": "--http2-max-streams",
    "--http2-max-frame-size": "",
    "--http2-max-header-list-size": "--limit-head-size",
    "--http2-max-headers-size": "--limit-head-size",
    "--http2-max-send-buffer-size": "",
    # WebSocket.
    "--ws": _WEBSOCKETS,
    "--no-ws": _WEBSOCKETS,
    "--ws-max-size": "--websocket-max-message-size",
    "--ws-max-queue": "--request-buffer-size, in bytes",
    "--ws-ping-interval": "--ping-interval",
    "--websocket-ping-interval": "--ping-interval",
    "--ws-ping-timeout": "--ping-timeout",
    "--ws-per-message-deflate": "--websocket-compression or --no-websocket-compression",
    # Limits.
    "--backpressure": "--limit-concurrency",
    "--worker-connections": "--limit-connections",
    "--threads": "--django-threads, or the variable ASGI_THREADS",
    "--blocking-threads": "--django-threads, or the variable ASGI_THREADS",
    "--blocking-threads-idle-timeout": "",
    "--runtime-threads": "--workers; an event loop runs on one thread",
    "--runtime-blocking-threads": "the variable ASGI_THREADS is the number of threads",
    "--runtime-mode": _ONE_WAY,
    # Workers.
    "-k": _WORKER_CLASS,
    "--worker-class": _WORKER_CLASS,
    "--timeout": "--worker-timeout",
    "--timeout-worker-healthcheck": "--worker-timeout",
    "--timeout-graceful-shutdown": "--graceful-timeout",
    "--workers-kill-timeout": "--graceful-timeout",
    "--limit-max-requests": "--max-requests",
    "--limit-max-requests-jitter": "--max-requests-jitter",
    "--workers-lifetime": "--max-lifetime",
    "--workers-max-rss": "--max-memory, in bytes",
    "--rss-sample-interval": "",
    "--rss-samples": "",
    "--respawn-failed-workers": _LEAVE_OUT,
    "--no-respawn-failed-workers": "a worker that dies is replaced in any case",
    "--respawn-interval": "a worker that dies is replaced at once",
    "--worker-tmp-dir": _LEAVE_OUT,
    "--pid": "--pid-file",
    "-n": "",
    "--name": "",
    "--process-name": "",
    "-D": _NO_DAEMON,
    "--daemon": _NO_DAEMON,
    "--user": _NO_USER,
    "-g": _NO_USER,
    "--group": _NO_USER,
    "--initgroups": _NO_USER,
    "-m": "--unix-socket-mode, or umask before the command",
    "--umask": "--unix-socket-mode, or umask before the command",
    "--control-socket": "signals do what a control socket does",
    "--control-socket-mode": "signals do what a control socket does",
    "--no-control-socket": _LEAVE_OUT,
    "--dirty-app": "",
    "--dirty-workers": "",
    "--dirty-timeout": "",
    "--dirty-threads": "",
    "--dirty-graceful-timeout": "",
    # Reloading.
    "--reload-delay": "changes are seen at once, leave it out",
    "--reload-tick": "changes are seen at once, leave it out",
    "--reload-engine": "watchfiles watches, leave it out",
    "--reload-extra-file": "--reload-include",
    "--reload-paths": "--reload-dir",
    "--reload-ignore-dirs": "--reload-exclude",
    "--reload-ignore-paths": "--reload-exclude",
    "--reload-ignore-patterns": "--reload-exclude",
    "--reload-ignore-worker-failure": _LEAVE_OUT,
    "--no-reload-ignore-worker-failure": "the next change starts a worker that failed",
    # Logging.
    "--access-logfile": "--access-log",
    "--access-logformat": "--access-log-format",
    "--access-log-fmt": "--access-log-format",
    "--error-log": _ONE_LOG,
    "--error-logfile": _ONE_LOG,
    "--log-file": _ONE_LOG,
    "--no-log": "--log-level critical --no-access-log",
    "--log-config-json": "--log-config",
    "--log-syslog": _ONE_LOG,
    "--log-syslog-to": _ONE_LOG,
    "--log-syslog-prefix": _ONE_LOG,
    "--log-syslog-facility": _ONE_LOG,
    "--disable-redirect-access-to-syslog": _LEAVE_OUT,
    "--logger-class": "--log-config",
    "--capture-output": "send standard output where you want it",
    "-R": _LEAVE_OUT,
    "--enable-stdio-inheritance": _LEAVE_OUT,
    "--use-colors": "a terminal shows colours, leave it out",
    "--no-use-colors": "the variable NO_COLOR=1 takes colours away",
    "--statsd-host": "",
    "--statsd-prefix": "",
    "--dogstatsd-tags": "",
    "--enable-backlog-metric": "",
    "--no-metrics": "it is off without --metrics",
    "--metrics-address": "--metrics tcp:PORT:interface=ADDRESS",
    "--metrics-port": "--metrics tcp:PORT:interface=ADDRESS",
    "--metrics-scrape-interval": "",
    "--static-path-mount": _STATIC,
    "--static-path-route": _STATIC,
    "--static-path-dir-to-file": _STATIC,
    "--static-path-expires": _STATIC,
}


def advice(flag: str, known: Collection[str]) -> str:
    """What to write in place of ``flag``, as the end of a message that has named it.

    :param known: our own flags.
    """
    foreign = FOREIGN_FLAGS.get(flag)
    if foreign is not None:
        return f": use {foreign}" if foreign.startswith("-") else f": {foreign or 'nothing here is like it'}"
    return nearest(flag, known)


def nearest(name: str, known: Collection[str]) -> str:
    """The end of a message that has named what there is not: what may have been meant."""
    import difflib

    longer = [each for each in known if each.startswith(name)]
    if len(longer) == 1:
        return f"; did you mean {longer[0]}?"
    # What all of them begin with says nothing.
    found = difflib.get_close_matches(_own_part(name), sorted(map(_own_part, known)), 1, 0.7)
    meant = next((each for each in sorted(known) if found and _own_part(each) == found[0]), "")
    return f"; did you mean {meant}?" if meant else ""


def _own_part(name: str) -> str:
    return name.removeprefix("--").removeprefix("ASGISERVER_")
