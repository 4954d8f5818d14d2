"""Rules of the RFCs that several rooms check: tokens of HTTP, close frames of WebSockets."""

from __future__ import annotations

__all__ = ["MOST_OF_A_REASON", "TCHAR", "TOKEN", "is_close_code"]

#: The characters of a token (RFC 9110 §5.6.2, tchar).
TCHAR = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

#: A token, as a regular expression; one more ``+`` behind it makes it possessive.
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"

#: Most bytes of a close frame's reason: a control frame has 125 at most, and two are the code's (RFC 6455 §5.5).
MOST_OF_A_REASON = 123


def is_close_code(code: int) -> bool:
    """True for the codes that may stand in a close frame (RFC 6455 §7.4; 1012 to 1014 come from IANA's registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
