"""Sockets that are connected: TCP, unix, and TLS over memory buffers of Python's own ``ssl``.

Twisted's ports make a transport for each client that they accept. :mod:`.tcp` is the plain one; :mod:`.tls` puts
OpenSSL between its socket and the protocol, after a look at the client's hello (:mod:`.client_hello`), with a context
of the port's :mod:`.certificates`. Twisted keeps unsent data in private attributes; other rooms look at them only
through :mod:`.buffer`. Nothing here opens a listening socket, or speaks HTTP.
"""
