"""What four workers of a Django project need once they have worked for a while."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from .django_loads import PROJECT, database
from .load import MIB, Load, Slice
from .processes import memory_bytes
from .project.answers import found_of, hello_of, login_of
from .running import Running, ServerFailed
from .varied import Varied, any_number

__all__ = ["WORKERS"]

COUNT = 4
#: Requests of each kind, and how many at a time: the workers share them.
EACH, AT_ONCE = 80, 8
KINDS = Varied(hello_of), Varied(found_of, prefix="/orm"), Varied(login_of, prefix="/admin/login/?next=")
#: Seconds until each worker has made its collection.
MOST_SECONDS = 30.0


@contextmanager
def _collected(server: Running) -> Iterator[Slice]:
    """Takes the memory after all requests and a full collection in each worker.

    That is what hours of service amount to: a collection writes into the head of each object, which is then shared with
    no other process any more.
    """
    collect = b"GET /collect HTTP/1.1\r\nHost: %s\r\n\r\n" % server.host.encode("ascii")

    def take(seconds: float) -> dict[str, float]:
        messages = [kind.message(any_number(), server.host) for kind in KINDS for _ in range(EACH)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(server.answer, messages))
            found: set[bytes] = set()
            end = time.monotonic() + MOST_SECONDS
            while len(found) < server.workers:
                if time.monotonic() > end:
                    raise ServerFailed(f"only {len(found)} workers answer")
                found.update(pool.map(server.answer, [collect] * AT_ONCE))
        return {"memory": memory_bytes(server.pid) / MIB}

    yield take


WORKERS = {
    "workers-memory": Load(
        "Django, four workers after 240 requests and a full collection", "server", f"{PROJECT}.collecting:application",
        client=_collected, metrics=("memory",), group="workers", workers=COUNT, prepare=database, answer=None,
        slices=1, warm_up=False,
    ),
}  # fmt: skip
