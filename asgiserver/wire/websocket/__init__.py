"""Frames and messages of WebSockets (RFC 6455, RFC 7692), over Autobahn's parser: the only files that know Autobahn.

Autobahn's handshake, HTTP parser, timers and factory are not used; :mod:`asgiserver.wire.handshake` does the handshake.
Open :mod:`.frames` first. It is the engine that a WebSocket's exchange owns: it takes bytes and calls back with
messages and closes.
"""
