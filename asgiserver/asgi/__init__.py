"""What the application sees: exchanges in ASGI's messages, whichever protocol carries them.

An *exchange* is one request and its response (RFC 9110 §3.4), or one WebSocket. The wire tells it what the peer sends
(``body_received``, ``body_ended``, ``disconnected``); the application asks it by ``receive()`` and answers through
``handle_reply``. An exchange writes through one narrow interface, :class:`.interfaces.Stream`.

Everything here is pure: no socket, no reactor, no parser, no text of HTTP/1. Time comes from a ``Clock`` that is handed
in. The names of ASGI's messages appear here, and otherwise only in ``wsgi/``, which is an application itself. Messages
of the application are checked once, at the border (:mod:`.messages`); typed values travel behind it. Each exchange has
one state (:class:`.exchange.State`); a pair of state and reply that is not in its table is the application's mistake.

Open :mod:`.exchange` first, then :mod:`.http` or :mod:`.websocket`; :mod:`.interfaces` has the seams.
"""
