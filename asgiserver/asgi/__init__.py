"""What the application sees: conversations in ASGI's messages, whatever brings them.

An *exchange* is one request and its response (RFC 9110 §3.4), or one WebSocket. The wire tells it what the peer sends
(``body_received``, ``body_ended``, ``disconnected``); the application asks it by ``receive()`` and answers through
``handle_reply``. What it has to say goes out through one narrow interface, :class:`.interfaces.Stream`.

Everything here is pure: no socket, no reactor, no parser, no text of HTTP/1. Time comes from a ``Clock`` that is handed
in. The names of ASGI's messages appear here and nowhere else. An application's messages are checked once, at the border
(:mod:`.messages`); behind it travel typed values. Each exchange has one state (:class:`.exchange.State`), and a pair of
state and reply that is not in its table is the application's mistake.

Open :mod:`.exchange` first, then :mod:`.http` or :mod:`.websocket`; :mod:`.interfaces` has the seams.
"""
