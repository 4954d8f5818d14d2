"""The ``environ`` of a WSGI application (PEP 3333), made of an ASGI scope."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

from .. import __version__
from ..asgi.interfaces import Scope

__all__ = ["make_environ"]


def make_environ(scope: Scope) -> dict[str, Any]:
    """The variables of PEP 3333, all but ``wsgi.input``, from a scope of type ``http``.

    Texts hold one byte in each character, as Latin-1 ("Unicode Issues"). Fields that came several times are joined by
    commas (RFC 9110 §5.3), cookies by semicolons (RFC 6265 §5.4). Transfer-Encoding is left out: the application gets
    the decoded body (RFC 9112 §7.1.3).
    """
    script_name, path_info = _split(scope["raw_path"], scope["root_path"])
    query, scheme = scope["query_string"].decode("latin-1"), scope["scheme"]
    target = scope["raw_path"].decode("latin-1") + ("?" + query if query else "")
    # A unix socket has no port, and neither variable may be empty.
    host, port = scope["server"] or ("", None)
    if port is None:
        host, port = "localhost", 443 if scheme == "https" else 80
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": script_name,
        "PATH_INFO": path_info,
        "QUERY_STRING": query,
        "RAW_URI": target,
        "REQUEST_URI": target,
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_SOFTWARE": f"asgiserver/{__version__}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        # Another server may have the same application behind the same proxy or socket.
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    if scope["client"] is not None:
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = scope["client"][0], str(scope["client"][1])
    for name, value in scope["headers"]:
        key, text = "HTTP_" + name.decode("latin-1").upper().replace("-", "_"), value.decode("latin-1")
        if key in environ:
            text = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + text
        environ[key] = text
    for key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
        if key in environ:
            environ[key.removeprefix("HTTP_")] = environ.pop(key)
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    return environ


def _split(raw_path: bytes, root_path: str) -> tuple[str, str]:
    """SCRIPT_NAME and PATH_INFO: the path after ``root_path``, where it is that, or begins with that and a ``/``."""
    path, root = unquote_to_bytes(raw_path).decode("latin-1"), root_path.encode().decode("latin-1").rstrip("/")
    return root, path[len(root) :] if path == root or path.startswith(f"{root}/") else path
