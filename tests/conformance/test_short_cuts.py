"""Random conversations, right and wrong, cut at random places: the short cuts change nothing that anybody can see."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from asgiserver.wire.websocket.frames import WebSocketProtocol

from .cases import DEFLATE, INVALID_UTF8, LEGAL_CODES, VALID_UTF8
from .peer import BINARY, CONTINUATION, PING, PONG, TEXT, RecordingChannel, close, connect, frame

FINAL = bytes.fromhex("f348cdc9c90700")
OFFERS = (
    b"", DEFLATE, DEFLATE + b"; client_no_context_takeover", DEFLATE + b"; server_no_context_takeover",
    DEFLATE + b"; client_no_context_takeover; server_no_context_takeover; server_max_window_bits=9",
)  # fmt: skip
LIMITS = st.sampled_from([0] * 16 + [5, 20, 125, 126, 300, 70_000])

masks = st.one_of(st.just(bytes(4)), st.binary(min_size=4, max_size=4))
sizes = st.one_of(st.integers(0, 30), st.sampled_from([124, 125, 126, 127, 130, 300, 1500, 65535, 65536]))


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """Of a data frame: mostly text that is UTF-8 and longer than what is said."""
    text = "".join(draw(st.lists(st.sampled_from(VALID_UTF8), max_size=3))).encode()
    wrong = draw(st.sampled_from([b""] * 300 + list(INVALID_UTF8)))
    size = max(0, draw(sizes) - len(text))
    return text + (b'{"number": 1}' * (size // 13 + 1))[:size] + wrong


class Client:
    """What it compresses refers to what it has compressed before, or not."""

    def __init__(self) -> None:
        self.shared = zlib.compressobj(wbits=-15)

    def deflated(self, payload: bytes, how: str) -> bytes:
        if how == "final":
            return FINAL
        compressor = self.shared if how == "shared" else zlib.compressobj(0 if how == "stored" else 6, wbits=-15)
        data = (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        if how == "cut":
            return data[: len(data) // 2]
        return FINAL + data if how == "behind a final block" else data


HOW = ["shared"] * 6 + ["alone"] * 3 + ["stored", "cut", "final", "behind a final block"]


@st.composite
def messages(draw: st.DrawFn, client: Client, compresses: bool) -> list[bytes]:
    """One message in one frame or several, with control frames between them, and seldom without its end."""
    opcode, payload, rsv = draw(st.sampled_from([TEXT, TEXT, BINARY])), draw(payloads()), 0
    if compresses and draw(st.booleans()):
        payload, rsv = client.deflated(payload, draw(st.sampled_from(HOW))), 4
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=draw(st.sampled_from([0, 0, 0, 3])))))
    sent = []
    for at, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(payload)], strict=True)):
        opcode, rsv = (CONTINUATION, 0) if at else (opcode, rsv)
        sent.append(frame(opcode, payload[start:end], fin=at == len(cuts), rsv=rsv, mask=draw(masks)))
        if at < len(cuts) and draw(st.booleans()):
            sent.append(draw(controls))
    return sent[: draw(st.sampled_from([-1] + [len(sent)] * 9))] if cuts else sent


controls = st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=20), mask=masks)
closes = st.builds(close, st.sampled_from(LEGAL_CODES), st.just(b"bye"))
#: What no client may send, and what only some may, or only at times.
violations = st.builds(
    frame, st.integers(0, 15), payloads(), fin=st.booleans(), rsv=st.sampled_from([0, 0, 4, 2, 7]),
    masked=st.booleans(), mask=masks,
)  # fmt: skip
too_long_forms = st.builds(
    frame, st.sampled_from([TEXT, BINARY]), st.binary(max_size=130), form=st.sampled_from([126, 127])
)

Step = tuple[str, Any]


@st.composite
def reads(draw: st.DrawFn, frames: list[bytes]) -> list[bytes]:
    """The frames cut into what is read at once: each for itself, or at random places, often at a frame's edge."""
    if draw(st.booleans()):
        return frames
    data = b"".join(frames)
    edges = [sum(map(len, frames[:at])) + beyond for at in range(len(frames)) for beyond in (0, 1, 2, 6, 8, 14, 15)]
    places = st.one_of(st.integers(0, len(data)), st.sampled_from(edges))
    cuts = sorted(min(place, len(data)) for place in draw(st.lists(places, max_size=8)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@st.composite
def conversations(draw: st.DrawFn) -> tuple[dict[str, Any], list[Step]]:
    """How the engine is made, and what happens to it."""
    offer = draw(st.sampled_from(OFFERS))
    client, frames = Client(), []
    others = {"control": controls, "violation": violations, "form": too_long_forms, "close": closes}
    for _ in range(draw(st.integers(1, 10))):
        kind = draw(st.sampled_from(["message"] * 24 + ["control"] * 4 + ["violation", "form", "close"]))
        frames += draw(messages(client, bool(offer))) if kind == "message" else [draw(others[kind])]
    steps: list[Step] = []
    for piece in draw(reads(frames)):
        steps.append(("receive", piece))
        if draw(st.integers(0, 2)) == 0:
            steps.append(draw(actions))
    made = {"max_message_size": draw(LIMITS), "max_frame_size": draw(LIMITS), "offer": offer}
    return made, [*steps, ("room", None), ("slow", False), ("send_message", b"at the end, to be compressed")]


actions: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("room"), st.sampled_from([0, 1, 2, None])),
    st.tuples(st.just("slow"), st.booleans()),
    st.tuples(st.just("send_message"), st.binary(max_size=300)),
    st.tuples(st.just("send_close"), st.sampled_from(LEGAL_CODES)),
    st.tuples(st.just("send_close"), st.just(1000)),
    st.tuples(st.just("room"), st.sampled_from([0, 1, 2, None])),
    st.tuples(st.sampled_from(["resume", "abandon"]), st.none()),
)


class Side:
    """An engine with its channel, and what can be seen of both."""

    def __init__(self, short_cuts: bool, **made: Any) -> None:
        self.channel = RecordingChannel()
        self.protocol: WebSocketProtocol = connect(self.channel, short_cuts=short_cuts, **made)

    def take(self, step: Step) -> object:
        name, value = step
        takes: dict[str, Callable[[], None]] = {
            "receive": lambda: self.protocol.receive(value),
            "send_message": lambda: self.protocol.send_message(value, text=False),
            "send_close": lambda: self.protocol.send_close(value, "why"),
            "abandon": self.protocol.abandon,
            "resume": self.protocol.resume,
        }
        if name in ("room", "slow"):
            setattr(self.channel, name, value)
            if value in (None, False):
                self.protocol.resume()
        else:
            takes[name]()
        # Two things can be wrong with one payload, and it is told of either: not of the reason of a failure.
        seen = [(first, payload[:2] if first == 0x88 else payload) for first, payload in self.channel.frames]
        return self.channel.events, seen, self.protocol.state, self.protocol._ping, self.protocol._kept


@settings(max_examples=300, deadline=None)
@given(conversations())
def test_short_cuts_change_nothing(conversation: tuple[dict[str, Any], list[Step]]) -> None:
    made, steps = conversation
    short, long = Side(True, **made), Side(False, **made)
    for step in steps:
        assert short.take(step) == long.take(step)
    # Nothing is kept of frames that are over.
    assert short.protocol._partial is None or short.protocol._partial.missing
