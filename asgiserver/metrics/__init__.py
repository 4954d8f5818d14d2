"""What the server counts, and who tells of it: ``--metrics``.

::

    worker       Counts: plain lists, to which hub and exchanges add    counts
     │           Recorder: once a second a copy, to the shared memory   recorder
    the board    workers/board.py; without workers a board of one slot
     │
    monitor      Reading: all of the board, at one moment               reading
                 the text for Prometheus                                exposition
                 an ASGI application, served by asgiserver itself       monitor

The monitor never asks a worker anything: it answers while the event loops of all workers are blocked. With workers it
is a process of its own; without, a second server on the same loop. Nothing here is imported without ``--metrics``.
"""
