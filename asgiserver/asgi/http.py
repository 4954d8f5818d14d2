"""An HTTP request and its response (ASGI HTTP 2.5)."""

from __future__ import annotations

import logging
import os
from collections import deque
from typing import Any

from ..errors import MessageError, RequestError
from ..settings import Settings
from .deadlines import Deadline
from .exchange import (
    COMPLETE,
    GONE,
    LAST_WORDS,
    MANY_WORDS,
    STARTED,
    STREAMING,
    TRAILERS,
    WAITING,
    Exchange,
    State,
    logged_request,
    waited,
)
from .files import FilePart, SendFile, SendPath, file_part, open_path, pass_by
from .interfaces import Clock, Hub, Message, Scope, Stream
from .messages import EarlyHint, HTTPReply, ResponseBody, ResponseStart, Trailers, parse_http
from .response import Response

__all__ = ["HTTPExchange"]

logger = logging.getLogger("asgiserver")


class HTTPExchange(Exchange):
    """An HTTP request and its response."""

    __slots__ = ("_body", "_buffered", "_delivered", "_ended", "_logged", "_paused", "_received")

    parse = staticmethod(parse_http)

    def __init__(self, scope: Scope, stream: Stream, hub: Hub, settings: Settings, clock: Clock) -> None:
        super().__init__(scope, stream, hub, settings, clock)
        # Made when it is needed: an empty one takes 760 bytes, and few requests have a body.
        self._body: deque[bytes] | None = None
        self._buffered = self._received = 0
        self._ended = self._delivered = self._paused = False
        # The clock is asked only for a request that is counted or may be logged.
        self._logged = logged = hub.logs_actions or settings.slow_request_log is not None
        self.began = clock.seconds() if logged or hub.counts is not None else None
        if settings.http_timeout is not None:
            self.deadlines.set(Deadline.REQUEST, settings.http_timeout, self._too_old)

    # The request half.

    def body_received(self, data: bytes) -> None:
        """Keep a piece of the body; the wire is paused from ``request_buffer_size`` bytes on.

        The piece is kept whole: to cut it would only copy bytes that are in memory anyway.
        """
        self._received += len(data)
        if self.finished:
            return
        if self._body is None:
            self._body = deque()
        self._body.append(data)
        self._buffered += len(data)
        # To pause and resume reading for a piece that the application waits for would cost more than to take it.
        awaited = self._waiters and len(self._body) == 1
        if self._buffered >= self.settings.request_buffer_size and not awaited and not self._paused:
            self._paused = True
            self.stream.pause_reading()
        self._wake()

    @property
    def cut_off(self) -> bool:
        # An upload that the client gave up.
        return self.gone and self._told and not self._ended

    def body_ended(self) -> None:
        self._ended = True
        if self._waiters:
            self._wake()

    def _next_event(self) -> Message | None:
        if not (self._body or self._ended or self.finished):
            # The application wants the body: the moment for a 100 (Continue). Bytes that the wire has kept come at
            # once, and may end this exchange.
            self._resume()
        if self.state is COMPLETE or (self.gone and (self._delivered or not self._ended)):
            # ASGI "Disconnect": also what receive() gives once the response has been sent.
            return self._disconnect()
        if self._body or (self._ended and not self._delivered):
            return self._next_piece()
        # While the server ends, the peer is still there, but an application has no other way to learn that its stream
        # has to end.
        return self._disconnect() if self._delivered and self._hub.ending and self._is_endless else None

    def _disconnect(self) -> Message:
        self._told = True
        return {"type": "http.disconnect"}

    def _next_piece(self) -> Message:
        piece = self._body.popleft() if self._body else b""
        self._buffered -= len(piece)
        self._delivered = self._ended and not self._body
        if self._paused and not self.finished and self._buffered <= self.settings.request_buffer_size // 2:
            self._resume()
        return {"type": "http.request", "body": piece, "more_body": not self._delivered}

    def _resume(self) -> None:
        self._paused = False
        self.stream.resume_reading()

    # The reply half.

    def take_reply(self, reply: HTTPReply) -> None:
        """Take a parsed message of the application (ASGI HTTP, "Response Start" and "Response Body"; extensions)."""
        state = self.state
        # Fast path: the pairs of every request, which a match takes longer to find.
        if type(reply) is ResponseBody and (state is STARTED or state is STREAMING):
            self._send_body(*reply)
            return
        if type(reply) is ResponseStart and state is WAITING:
            self.response = Response(self.stream, reply, self.scope["method"])
            self.state = STARTED
            return
        match state, reply:
            case State.STARTED, SendPath(path):
                self._send_file(open_path(path), more_body=False)
            case (State.STARTED | State.STREAMING), SendFile():
                part = file_part(reply)
                self._send_file(part, reply.more_body)
                pass_by(reply, part)
            case State.TRAILERS, Trailers():
                assert self.response is not None
                self.response.send_trailers(reply)
                if not reply.more_trailers:
                    self._complete(COMPLETE)
            case (State.WAITING | State.STARTED | State.STREAMING | State.TRAILERS), EarlyHint():
                self.stream.send_informational(103, *reply)
            case _:
                raise self._unexpected(reply)

    def _send_body(self, body: bytes, more_body: bool) -> None:
        assert self.response is not None
        try:
            self.response.send(body, more_body)
        except MessageError:
            if not more_body:
                # The last message is wrong, so the response can have no clean end any more.
                self._abort_response()
            raise
        if more_body:
            self.state = STREAMING
        else:
            self._body_sent()

    def _body_sent(self) -> None:
        """The last piece of the response's body is with the wire."""
        assert self.response is not None
        if self.response.trailers:
            self.state = TRAILERS
        else:
            self._complete(COMPLETE)

    def _send_file(self, part: FilePart, more_body: bool) -> None:
        """Begin to send a file; without ``more_body`` the response ends with the file's last byte, maybe much later."""
        assert self.response is not None
        state, self.state = self.state, STREAMING
        try:
            self.response.send_file(part, more_body, self._file_sent)
        except MessageError:
            os.close(part.descriptor)
            self.state = state
            if not more_body:
                self._abort_response()
            raise

    def _file_sent(self, more_body: bool) -> None:
        if not more_body and not self.finished:
            self._body_sent()

    @property
    def _is_endless(self) -> bool:
        """The application has begun a response and told no length of it."""
        begun = self.state is STREAMING or self.state is STARTED
        return begun and self.response is not None and self.response.endless

    @property
    def answered(self) -> bool:
        # While the server stops, a stream may also be left without its end.
        return super().answered or (self._hub.stopping and self._is_endless)

    def server_stopping(self) -> None:
        """Wake an application that listens, so that it learns whether its stream is to end.

        Its messages are still sent; to end the response in order, the application sends a last piece as always.
        """
        self._wake()

    def application_done(self, failed: bool) -> None:
        """Answer 500 when nothing was sent, 503 if a stream was to end; cut an unfinished response off."""
        if self.state in (WAITING, STARTED):
            stopped = self.answered and not failed
            error = RequestError(*((503, "The server is stopping.") if stopped else (500, "Internal Server Error")))
            self._answer(error, close=False)
            self._complete(COMPLETE)
        else:
            self._abort_response()

    def request_failed(self, error: RequestError) -> None:
        """Answer ``error`` and close, or abort a response that has begun (RFC 9112 §9.6)."""
        self._body = None
        self._ended = False
        if self.state in (WAITING, STARTED):
            self._answer(error, close=True)
            self._complete(GONE)
        else:
            self._abort_response()

    def disconnected(self) -> None:
        """The peer has left: an incomplete body is of no use, a complete one may still be read.

        A peer may leave as soon as it has the whole response, even before the application has sent the message that
        ends it: such a response is complete (RFC 9112 §6.3).
        """
        whole = self.response is not None and self.response.whole
        self._leave(COMPLETE if whole else GONE)

    def _leave(self, state: State) -> None:
        if self.finished:
            return
        if not self._ended:
            self._body = None
        # One that was cancelled in this turn of the loop is still there, and will not be told.
        waits = any(not waiter.done() for waiter in self._waiters or ())
        self._spared = MANY_WORDS if waits else LAST_WORDS
        self._complete(state)

    def _abort_response(self) -> None:
        """Cut a begun response off, so that the peer sees that it is not complete."""
        if self.state is STREAMING or self.state is TRAILERS:
            self.stream.abort()
            self._leave(GONE)

    def _too_old(self) -> None:
        if not self.finished:
            self.request_failed(RequestError(503, "The request was not answered in time."))

    def _complete(self, state: State) -> None:
        self.state = state
        if self._deadlines is not None:
            self._deadlines.clear(Deadline.REQUEST)
        if self.began is not None:
            seconds, counts = self.clock.seconds() - self.began, self._hub.counts
            status, sent = self.status, 0 if self.response is None else self.response.sent
            if counts is not None:
                counts.request((self.scope["method"], status, seconds, self._received, sent))
            if self._logged:
                self._log(status, seconds, sent)
        if self._waiters:
            self._wake()
        if state is GONE:
            self._hub.exchange_gone(self)

    @property
    def age(self) -> float | None:
        """Seconds since the request came; None when nothing that is set needs to know."""
        return None if self.began is None else self.clock.seconds() - self.began

    def _log(self, status: int, seconds: float, sent: int) -> None:
        if self._hub.logs_actions:
            self._hub.log_action("http", "complete", self._details(status, seconds, sent))
        limit = self.settings.slow_request_log
        if limit is not None and seconds >= limit:
            logger.warning("%s took %.1f seconds, status %d", self, seconds, status, extra=self.logged)

    def _details(self, status: int, seconds: float, sent: int) -> dict[str, Any]:
        details = {
            **logged_request(self.scope, self.request_id),
            "status": status,
            "method": self.scope["method"],
            "time_taken": seconds,
            "size": sent,
            "request_size": self._received,
        }
        if (for_thread := waited.get(None)) is not None:
            details["waited"] = for_thread
        return details
