"""The application behind the wrappers of servers that have no option for forwarding fields, as their manuals tell.

The one that is wanted is of the server that imports this: the other's modules would only take memory.
"""

from __future__ import annotations

import sys
from typing import Any

from .applications import proxied

if "granian" in sys.modules:
    from granian.utils.proxies import wrap_asgi_with_proxy_headers

    granian = wrap_asgi_with_proxy_headers(proxied, trusted_hosts="127.0.0.1")

if "hypercorn" in sys.modules:
    from hypercorn.middleware import ProxyFixMiddleware

    _application: Any = proxied  # hypercorn has types of its own for ASGI's messages
    hypercorn = ProxyFixMiddleware(_application, mode="legacy", trusted_hops=1)
