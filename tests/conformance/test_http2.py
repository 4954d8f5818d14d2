"""The cases over HTTP/2 (RFC 8441): h2 carries them to a whole server, in frames of DATA that cut them anywhere."""

from __future__ import annotations

import asyncio
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from tests.e2e.live import DEADLINE, serve

from .cases import Case, cases
from .peer import close, server_frames

CASES = list(cases())
#: The answer to a close of the client's.
_NORMAL = (0x88, b"\x03\xe8")


class Client:
    """One WebSocket on a connection of its own.

    :ivar read: bytes of the server's half.
    :ivar ended: the server's half is over.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.status = ""
        self.read = b""
        self.ended = False

    async def step(self) -> None:
        """Write what is to be written, and read once."""
        self.writer.write(self.h2.data_to_send())
        data = await self.reader.read(65536)
        assert data, "the server closed the connection"
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.status = dict(event.headers)[":status"]
            elif isinstance(event, h2.events.DataReceived):
                self.read += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                self.ended = True

    async def open(self, offer: bytes) -> None:
        while not self.h2.remote_settings.enable_connect_protocol:
            await self.step()
        fields = [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "localhost"),
            (":path", "/"), ("sec-websocket-version", "13"),
        ]  # fmt: skip
        if offer:
            fields.append(("sec-websocket-extensions", offer.decode("ascii")))
        self.h2.send_headers(1, fields)
        while not self.status:
            await self.step()
        assert self.status == "200"

    async def send(self, data: bytes, size: int) -> None:
        """Send ``data`` in frames of ``size`` bytes, as far as the server takes them."""
        at = 0
        while at < len(data) and not self.ended:
            room = min(size, self.h2.local_flow_control_window(1), self.h2.max_outbound_frame_size)
            if room:
                self.h2.send_data(1, data[at : at + room])
                at += room
            else:
                await self.step()


def outcome(case: Case) -> tuple[list[Any], list[tuple[int, bytes]]]:
    """What the application hears, and the server's frames: of a failure's close frame the code alone.

    A case in which neither side closes ends by a close of the client's.
    """
    heard = [event[1] for event in case.events if event[0] == "message"]
    last = case.events[-1] if case.events else ("", 0)
    if last[0] == "failed":
        assert isinstance(last[1], int)
        return heard, [*case.frames, (0x88, last[1].to_bytes(2))]
    return heard, [*case.frames, *([] if last[0] == "close" else [_NORMAL])]


async def converse(case: Case) -> tuple[list[Any], list[tuple[int, bytes]]]:
    heard: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert scope["http_version"] == "2"
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            heard.append(event["bytes"] if event.get("text") is None else event["text"])

    limits = {
        "websocket_max_message_size": case.max_message_size, "websocket_max_frame_size": case.max_frame_size,
    }  # fmt: skip
    async with serve(application, **limits) as server, asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection(*server.listening_addresses[0])
        client = Client(reader, writer)
        await client.open(case.offer)
        closes = case.events and case.events[-1][0] in ("failed", "close")
        # Many cuts, but no more frames than a client would ever send.
        await client.send(case.sent + (b"" if closes else close(1000)), max(7, len(case.sent) // 50))
        while not client.ended:
            await client.step()
        writer.close()
        await writer.wait_closed()
    frames = server_frames(client.read)
    if case.events and case.events[-1][0] == "failed":
        first, payload = frames.pop()
        frames.append((first, payload[:2]))
    return heard, frames


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_whole_server_behaves_as_the_case_says(case: Case) -> None:
    assert await converse(case) == outcome(case)
