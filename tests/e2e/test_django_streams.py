"""Streams, files and uploads of Django's views while their clients are slow, leave, or send for long."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from .django_site.running import BOTH, LARGE, SMALL, Connection, Site, head, multipart, site
from .server import wait_for

MIB = 1 << 20
# A point at the beginning of a piece is the sign of a file that is refused.
UPLOAD = os.urandom(MIB).replace(b".", b"-") * 64


@pytest.fixture(scope="module", params=BOTH)
def server(request: pytest.FixtureRequest) -> Iterator[Site]:
    """With two threads, of which streams need none for long."""
    with site(request.param, "--django-threads", "2") as server:
        yield server


def cut_off(server: Site, path: str) -> bytes:
    """What comes of a response that never ends as it should."""
    got: list[bytes] = []
    with server.client.stream("GET", path) as response:
        assert response.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            got.extend(response.iter_raw())
    return b"".join(got)


class TestSyncStreams:
    def test_come_piece_by_piece(self, server: Site) -> None:
        server.control("hold")
        before = len(server.said("waiting"))
        with Connection(server) as client:
            client.send(head("/stream/held/"))
            server.wait_until_said("waiting", times=before + 1)
            if server.handler == "ours":
                with client.begin() as response:
                    assert response.readline() == b"one\n"
                    server.control("release")
                    assert response.read() == b"two\n"
            else:
                # Django's handler makes a list of the stream first.
                assert select.select([client.socket], [], [], 0)[0] == []
                server.control("release")
                assert client.read().body == b"one\ntwo\n"

    @pytest.mark.parametrize("name", ["raising", "raising-os"])
    def test_that_fail_are_cut_off_visibly(self, server: Site, name: str) -> None:
        """Also by an OSError, which is the stream's own and not that of a client that left."""
        before = server.output().count("ERROR    Exception in the application for GET")
        finished = len(server.said("finished"))
        if server.handler == "ours":
            assert cut_off(server, f"/stream/{name}/") == b"one\ntwo\n"
        else:
            # Nothing was sent yet.
            assert server.get(f"/stream/{name}/").status_code == 500
        server.wait_until_said("over", name)
        wait_for(lambda: server.output().count("ERROR    Exception in the application for GET") == before + 1)
        if server.handler == "ours":
            # Django's handler forgets it.
            server.wait_until_said("finished", times=finished + 1)
        assert server.get("/thread/").status_code == 200

    def test_end_when_their_client_leaves(self, server: Site) -> None:
        before = len(server.said("over", "blocks"))
        with Connection(server, receive_buffer=65536) as client:
            client.send(head("/stream/blocks/"))
            if server.handler == "ours":
                with client.begin() as response:
                    response.read(65536)
            else:
                wait_for(lambda: len(server.said("over", "blocks")) > before)
        server.wait_until_said("over", "blocks", times=before + 1)
        count, how, same_thread = server.said("over", "blocks")[-1]
        if server.handler == "ours":
            assert (int(count) < 400, how, same_thread) == (True, "GeneratorExit", "True")
        else:
            assert (count, how) == ("400", "whole")

    def test_that_wait_when_their_client_leaves(self, server: Site) -> None:
        server.control("hold")
        waiting, over = len(server.said("waiting")), len(server.said("over", "held"))
        with Connection(server) as client:
            client.send(head("/stream/held/"))
            server.wait_until_said("waiting", times=waiting + 1)
        # Others are served meanwhile, also when more streams wait than there are threads.
        with ExitStack() as stack:
            for number in range(3):
                stack.enter_context(Connection(server)).send(head("/stream/held/"))
                server.wait_until_said("waiting", times=waiting + 2 + number)
            assert server.get("/thread/").status_code == 200
        server.control("release")
        server.wait_until_said("over", "held", times=over + 4)
        assert {line[2] for line in server.said("over", "held")[over:]} == {"True"}

    def test_of_many_slow_readers_take_no_memory(self) -> None:
        """Six of 64 MiB each; Django's own handler keeps them all."""
        with site("ours", "--django-threads", "2") as server, ExitStack() as stack:
            server.get("/thread/")
            before = server.memory("VmHWM")
            responses = []
            for _ in range(6):
                client = stack.enter_context(Connection(server, receive_buffer=65536))
                responses.append(stack.enter_context(client.send(head("/stream/huge/")).begin()))
            for response in responses * 3:
                assert len(response.read(100_000)) == 100_000
            assert server.get("/thread/").status_code == 200
            assert server.said("over", "huge") == []
            grown = server.memory("VmHWM") - before
            assert grown < 32 * MIB, f"{grown / MIB:.0f} MiB"
            assert len(responses[0].read()) == 64 * MIB - 300_000


class TestAsyncStreams:
    def test_come_piece_by_piece_and_end_with_their_client(self, server: Site) -> None:
        before = len(server.said("over", "async-held"))
        with Connection(server) as client, client.send(head("/async/stream/held/")).begin() as response:
            assert response.readline() == b"one\n"
        server.wait_until_said("over", "async-held", times=before + 1)

    def test_that_fail_are_cut_off_visibly(self, server: Site) -> None:
        assert cut_off(server, "/async/stream/raising/").startswith(b"one\n")
        assert server.get("/thread/").status_code == 200


class TestFiles:
    def test_that_shrink_are_cut_off(self, server: Site) -> None:
        path = server.folder / "large.bin"
        path.write_bytes(LARGE)
        with Connection(server, receive_buffer=65536) as client, client.send(head("/file/large/")).begin() as response:
            assert response.read(1000) == LARGE[:1000]
            os.truncate(path, 100_000)
            rest = LARGE[1000:]
            if server.handler == "ours":
                with pytest.raises((ConnectionError, http.client.IncompleteRead)):
                    response.read()
            else:
                # Django's handler has read the whole file before.
                assert response.read() == rest

    def test_to_slow_readers_hold_no_thread_and_no_memory(self) -> None:
        with site("ours", "--django-threads", "2") as server, ExitStack() as stack:
            server.get("/file/plain/")
            before = server.memory("VmHWM")
            responses = []
            for _ in range(6):
                client = stack.enter_context(Connection(server, receive_buffer=65536))
                responses.append(stack.enter_context(client.send(head("/file/large/")).begin()))
            assert server.get("/thread/").status_code == 200
            assert server.memory("VmHWM") - before < 16 * MIB
            assert responses[3].read() == LARGE
        assert not re.search("Exception|Traceback", server.output())

    def test_leave_no_descriptor_open(self, server: Site) -> None:
        def files() -> int:
            names = [os.readlink(each) for each in os.scandir(f"/proc/{server.pid}/fd") if os.path.islink(each)]
            return sum(name.endswith((".bin", ".gz")) for name in names)

        for name in ("plain", "seek", "gzip", "part", "streamed", "raw"):
            assert server.get(f"/file/{name}/").status_code in (200, 206)
        with Connection(server, receive_buffer=65536) as client:
            client.send(head("/file/large/")).begin().close()
        wait_for(lambda: files() == 0, message="a file stays open")


class TestUploads:
    def test_of_many_megabytes_take_no_memory_and_leave_no_file(self, server: Site) -> None:
        body = multipart(('name="file"; filename="f"\r\nContent-Type: application/octet-stream', UPLOAD))
        headers = {"content-type": "multipart/form-data; boundary=edge"}
        small = multipart(('name="file"; filename="f"', SMALL))
        server.client.post("/checksum/", content=small, headers=headers)
        before = server.memory("VmHWM")
        found = server.client.post("/checksum/", content=body, headers=headers).json()
        assert found == {"size": len(UPLOAD), "crc32": zlib.crc32(UPLOAD), "disk": True}
        grown = server.memory("VmHWM") - before
        assert grown < 24 * MIB, f"{grown / MIB:.0f} MiB"
        wait_for(lambda: not any((server.folder / "temporary").iterdir()))

    def test_in_chunks_are_read_in_pieces(self, server: Site) -> None:
        content = (UPLOAD[:70_001] for _ in range(50))
        found = server.client.post("/pieces/", content=content).json()
        assert found == {"sizes": [10_000] * 3, "sum": 50 * 70_001}

    def test_that_are_cut_off_begin_no_view(self, server: Site) -> None:
        before = len(server.said("started"))
        request = head("/pieces/", f"Content-Length: {len(SMALL) * 20}", method="POST")
        with Connection(server) as client:
            client.send(request + SMALL * 10)
            # The server has read this much once it has answered another.
            server.get("/thread/")
        server.get("/thread/")
        # Views send it, so that of the one that was cut off would be among them by now.
        wait_for(lambda: len(server.said("started")) >= before + 2)
        assert len(server.said("started")) == before + 2

    def test_slower_than_views_hold_no_thread(self, server: Site) -> None:
        """Four on two threads, one of which is in use."""
        server.control("hold")
        request = head("/pieces/", f"Content-Length: {len(SMALL) * 4}", method="POST")
        holder = threading.Thread(target=server.get, args=("/hold/?n=slow",))
        holder.start()
        with ExitStack() as stack:
            clients = [stack.enter_context(Connection(server)).send(request) for _ in range(4)]
            server.wait_until_said("holding", "slow")
            for _ in range(4):
                for client in clients:
                    assert server.get("/thread/").status_code == 200
                    client.send(SMALL)
            assert {json.loads(client.read().body)["sum"] for client in clients} == {len(SMALL) * 4}
        server.control("release")
        holder.join()

    def test_arrive_in_handlers_of_the_projects_own(self, server: Site) -> None:
        body = multipart(('name="file"; filename="f"', UPLOAD[: 3 * MIB]))
        headers = {"content-type": "multipart/form-data; boundary=edge"}
        before = len(server.said("chunk"))
        assert server.client.post("/measured/", content=body, headers=headers).text == f"{{'file': b'{3 * MIB}'}}"
        # Django reads 64 KiB at a time.
        assert len(server.said("chunk")) - before >= 48
