"""Every exception that asgiserver raises on purpose.

::

    ASGIServerError
    ├── SettingsError (ValueError)          wrong configuration; exit status 2
    ├── ReactorError (RuntimeError)         another reactor or loop is in the way
    ├── ListenError (OSError)               an address could not be listened on; exit status 1
    ├── LifespanError                       start-up failed or timed out; exit status 3
    ├── StartupError (RuntimeError)         a server under test did not start; its log is in the message
    ├── RequestError                        the server answers in the application's place
    └── ApplicationError                    raised inside the application's own ``await send()``
        ├── MessageError (ValueError)       a malformed message
        └── UnexpectedMessage (RuntimeError)  a good message in the wrong state
    ClientDisconnected (OSError)            the peer is gone; raised in an application that only sends

``ClientDisconnected`` stands apart: it reports nobody's mistake, and ASGI 2.4 asks for an ``OSError``.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = [
    "ASGIServerError", "ApplicationError", "ClientDisconnected", "LifespanError", "ListenError", "MessageError",
    "ReactorError", "RequestError", "SettingsError", "StartupError", "UnexpectedMessage",
]  # fmt: skip


class ASGIServerError(Exception):
    """The base of every error of this package but :class:`ClientDisconnected`."""


class SettingsError(ASGIServerError, ValueError):
    """A setting has a wrong value. The message names the setting and what was expected, on one line.

    :param about: the settings that the message names, in its order; by default that before the first colon.
    """

    def __init__(self, message: str, *about: str) -> None:
        super().__init__(message)
        self.about = about or (message.partition(":")[0],)

    def labelled(self, label: Callable[[str], str]) -> SettingsError:
        """The same with each setting under the name that ``label`` gives it, such as that of its flag."""
        text, rest = "", str(self)
        for name in self.about:
            before, found, rest = rest.partition(name)
            text += before + (label(name) if found else "")
        return SettingsError(text + rest)


class ReactorError(ASGIServerError, RuntimeError):
    """The process has a reactor or an event loop that asgiserver cannot use. The message names it and the cure."""


class ListenError(ASGIServerError, OSError):
    """An address could not be listened on. The message names the address and the cause on one line."""


class LifespanError(ASGIServerError):
    """The application's lifespan start-up failed, or did not end in time."""


class StartupError(ASGIServerError, RuntimeError):
    """A server of :mod:`asgiserver.testing` did not start. The message says why, and ends with the server's log."""


class RequestError(ASGIServerError):
    """The server answers a request in the application's place: the request is wrong, or the application cannot answer.

    :param status: the HTTP status code to answer with: 308, or 400 to 599.
    :param reason: one sentence that says what was wrong; sent to the peer as the body.
    :param headers: further fields of the answer, for example ``sec-websocket-version`` on a 426.
    """

    def __init__(self, status: int, reason: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers

    @property
    def body(self) -> bytes:
        """The body of the answer: the reason on a line."""
        return f"{self.reason}\n".encode()


class ApplicationError(ASGIServerError):
    """The application used ``send()`` wrongly; nothing of the offending message reached the wire."""


class MessageError(ApplicationError, ValueError):
    """A message of the application is malformed: its type, a key, or a value."""


class UnexpectedMessage(ApplicationError, RuntimeError):
    """A well-formed message of the application came in a state that does not allow it."""


class ClientDisconnected(OSError):
    """The peer has left, and the application does not listen for ``http.disconnect`` or ``websocket.disconnect``."""
