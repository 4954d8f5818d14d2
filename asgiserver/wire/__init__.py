"""What the peer sees: bytes on one side, requests, pieces of bodies and responses on the other.

A connection (:mod:`.connection`) is Twisted's protocol of one socket: bytes, time and pressure, but no HTTP. Its wire
(:mod:`.http1`) is the automaton of HTTP/1.1 on it: which exchange the bytes belong to, and when the next may begin. It
reads through a reader (:mod:`.reader`: heads and bodies, two parsers, one set of checks in :mod:`.head`) and writes by
the pure functions of :mod:`.response`. The wire is what an exchange sees as its ``Stream``.

What comes from a peer is parsed once and never turned back into text. Whatever a peer can make the server keep, or wait
for, has a bound. One read is worked on for a bounded number of steps, then other connections have their turn. No wire
knows a message of ASGI, and none imports the hub: what they need of it is :class:`.connection.WireHub`.

Open :mod:`.connection` first, then :mod:`.http1`. WebSocket's frames are in :mod:`.websocket`.
"""
