"""Sockets that are connected: TCP, unix, and TLS over memory buffers of Python's own ``ssl``.

A transport is what Twisted's ports make for each client that they accept; :mod:`.tcp` is the plain one, :mod:`.tls`
puts OpenSSL between its socket and the protocol, after a look at the client's hello (:mod:`.client_hello`). What waits
to be sent stands in attributes that Twisted keeps to itself: :mod:`.buffer` alone looks at them. Nothing here knows who
listens, or what is spoken.
"""
