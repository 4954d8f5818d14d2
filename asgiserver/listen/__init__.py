"""Sockets that listen: from settings and Twisted's endpoint descriptions to ports that accept.

:func:`.endpoints.listen` is the entrance and takes two steps: :mod:`.bind` reads the settings and makes or inherits
sockets by :mod:`.sockets`; :mod:`.accept` has Twisted accept on them, and may do so in another process. Below these,
:mod:`.accepting` keeps a port from spinning when file descriptors run out, and :mod:`.proxy_protocol` reads the header
that a proxy puts in front of a connection. A connection, once accepted, belongs to ``transport``; the caller hands in
the factory that answers it.
"""
