"""Several processes that serve on the same sockets, and one that watches them.

::

    supervisor          holds the sockets; the standard library alone, so that nothing of an application can harm it
     └─ nursery         one for each generation of the code: imports the application once, freezes it, forks
         ├─ worker …    a server as in a process of its own, on the inherited sockets
         └─ monitor     with ``--metrics``, see :mod:`asgiserver.metrics`

:mod:`.generations` decides everything and touches no process: read it first. :mod:`.supervisor` tells it what happens
and does what it says. A nursery that cannot import, or whose first worker does not start, ends alone: the generation
before it serves on. The three talk by :mod:`.channel`; what is asked for often stands in shared memory, the
:mod:`.board`: how many connections a worker has, for :mod:`.balance`, and when its event loop last came round, for
:mod:`.heartbeats`. A worker that should be replaced says so itself (:mod:`.recycling`), and serves until its successor
does.

With ``reload`` there is one worker, and a nursery that has imported the server alone: after a change, which
:mod:`.watch` sees, it forks a worker that imports the application anew. What cannot start is told by the
:mod:`.failure_page`.

Supervisor and nursery import no Twisted before the nursery imports the server; only ``worker``, ``balance`` and
``monitor`` may.
"""
