"""Frames and messages of WebSockets (RFC 6455, RFC 7692), over Autobahn's parser: the only files that know Autobahn.

Of Autobahn neither the handshake is used, nor its HTTP parser, its timers or its factory; the handshake is
:mod:`asgiserver.wire.handshake`'s. :mod:`.frames` is the engine that a WebSocket's exchange owns: it takes bytes and
calls back with messages and closes. Open it first.
"""
