"""What the views answer, in plain Python: the views use it, and so does whoever checks their answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Not when servers import this.
    from tests.benchmarks.varied import Asked

__all__ = [
    "MEMBERS", "SLEPT", "address", "api_of", "found", "found_of", "greeting", "hello_of", "login_of", "username",
]  # fmt: skip

#: Users in the database.
MEMBERS = 100
#: The whole answer of the view that sleeps.
SLEPT = b"Slept well."


def username(number: int) -> str:
    return f"member-{number % MEMBERS}"


def address(number: int) -> str:
    """What only the database tells of that user."""
    return f"{number % MEMBERS}@example.org"


def greeting(target: str) -> str:
    return f"Hello, {target}!"


def found(target: str, email: str) -> str:
    return f"Hello, {target}! Yours, {email}"


def _target(asked: Asked) -> str:
    return f"{asked.path}?{asked.query.decode('ascii')}"


def hello_of(asked: Asked) -> bytes:
    """The body that the views with nothing to do have to answer."""
    return greeting(_target(asked)).encode("ascii")


def found_of(asked: Asked) -> bytes:
    """The body that the view with a query has to answer."""
    number = int(asked.path.split("/")[-2])
    return found(_target(asked), address(number)).encode("ascii")


def api_of(asked: Asked) -> bytes:
    """The body that the view of Django REST framework has to answer."""
    return json.dumps({"hello": _target(asked)}, separators=(",", ":")).encode("ascii")


def login_of(asked: Asked) -> bytes:
    """What the page to log in has to hold; the rest of it differs with its token."""
    after = asked.query.partition(b"&")[0].removeprefix(b"next=")
    return b'<input type="hidden" name="next" value="%s">' % after
