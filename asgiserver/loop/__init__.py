"""Twisted's reactor on an asyncio loop: which one, how its sockets are read, and time.

:mod:`.reactor` is the one place that looks for, installs or replaces the process's reactor; all other modules are
handed one. :mod:`.direct` reads sockets without Twisted's detours, :mod:`.uvloop` keeps uvloop from losing connections
that were reset, :mod:`.clock` lets many deadlines share few timers. Twisted's private names may appear here and in
``transport``, nowhere else, and tests pin them. Nothing here knows HTTP or the server.
"""
