"""The peer's side of the server: bytes become requests and pieces of bodies, and responses become bytes.

A connection (:mod:`.connection`) is Twisted's protocol of one socket: its input, its time and its end, but no HTTP. Its
output (:mod:`.output`) is the one way out, with the pressure; connection and wire both hold it, and it knows no HTTP.
Its wire (:mod:`.http1`) is the state machine of HTTP/1.1: which exchange the bytes belong to, and when the next may
begin. It reads through a reader (:mod:`.reader`: heads and bodies, with the checks of :mod:`.head`) and makes its text
by the pure functions of :mod:`.response`. An exchange sees the wire as its ``Stream``. On a port that only sends on to
https, :mod:`.redirect` stands in for the hub.

Where a peer asks for HTTP/2, its wire is :mod:`.http2`: frames (:mod:`.http2_frames`) change the connection or one of
its streams (:mod:`.http2_stream`), each the ``Stream`` of an exchange with a way out of its own (:mod:`.http2_output`).
One writer (:mod:`.http2_writer`) sends for all, in the order of :mod:`.http2_order`. Heads are put together by
:mod:`.http2_heads`, read and written by :mod:`.hpack` and :mod:`.http2_fields`, and :mod:`.http2_limits` counts what
costs a peer nothing.

The input of a peer is parsed once and never turned back into text. All that a peer can make the server keep, or wait
for, has a bound. A connection works on one read for a bounded number of steps, then others have their turn. No wire
knows a message of ASGI, and none imports the hub: :class:`.connection.WireHub` is all that a wire needs of it.

Open :mod:`.connection` first, then :mod:`.http1`. WebSocket's frames are in :mod:`.websocket`.
"""
