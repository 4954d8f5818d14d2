"""A certificate in files, and clients that trust the authority behind it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import trustme

__all__ = ["Certificate"]


class Certificate:
    """A certificate for 127.0.0.1 and localhost, and its key.

    :param below_another: issue it by an authority below the one that clients know, so that they need the chain.
    :ivar chain: file of the certificate and those above it; ``key`` is that of the key, ``both`` has key and chain,
        ``root`` is the authority's.
    """

    def __init__(self, folder: Path, *, below_another: bool = False) -> None:
        self.authority = trustme.CA()
        issuer = self.authority.create_child_ca() if below_another else self.authority
        issued = issuer.issue_cert("127.0.0.1", "localhost")
        names = ("chain.pem", "key.pem", "both.pem", "root.pem")
        self.chain, self.key, self.both, self.root = (folder / name for name in names)
        self.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(self.key)
        issued.private_key_and_cert_chain_pem.write_to_path(self.both)
        self.authority.cert_pem.write_to_path(self.root)

    @property
    def settings(self) -> dict[str, Any]:
        return {"ssl_certfile": str(self.chain), "ssl_keyfile": str(self.key)}

    @property
    def args(self) -> tuple[str, ...]:
        """The same for the command line."""
        return "--ssl-certfile", str(self.chain), "--ssl-keyfile", str(self.key)

    def endpoint(self, kind: str = "ssl", interface: str = "127.0.0.1") -> str:
        """Twisted's description of a port of TLS."""
        return f"{kind}:0:interface={interface}:privateKey={self.both}:certKey={self.both}"

    def client(self, *protocols: str) -> ssl.SSLContext:
        """What a client that knows the authority needs; it offers ``protocols`` by ALPN."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context
