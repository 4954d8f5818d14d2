"""Sockets that listen: from settings and Twisted's endpoint descriptions to ports that accept.

:func:`.endpoints.listen` is the entrance, and takes two steps: :mod:`.bind` reads the settings and makes or inherits
sockets by :mod:`.sockets`; :mod:`.accept` has Twisted accept on them, and may do so in another process. Below that,
:mod:`.accepting` goes on without spinning when descriptors run out, and :mod:`.proxy_protocol` reads the header that a
proxy puts in front of a connection. What is accepted belongs to ``transport``; who answers is handed in as a factory.
"""
