"""Sockets that listen: from settings and Twisted's endpoint descriptions to ports that accept.

:func:`.endpoints.listen` is the entrance. :mod:`.sockets` makes, inherits and cleans up the sockets themselves,
:mod:`.accepting` accepts on them without spinning when descriptors run out, and :mod:`.proxy_protocol` reads the header
that a proxy puts in front of a connection. What is accepted belongs to ``transport``; who answers is handed in as a
factory.
"""
