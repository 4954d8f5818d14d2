"""Which offers of permessage-deflate are accepted, how, and what an inflater takes."""

from __future__ import annotations

from typing import Any

import pytest
from autobahn.exception import PayloadCorruptError, PayloadExceededError
from autobahn.websocket.compress_deflate import PerMessageDeflateResponse

from asgiserver.wire.handshake import parse_extensions
from asgiserver.wire.websocket.deflate import Deflate, negotiate_deflate
from tests.conformance.cases import deflated

NAME = "permessage-deflate"


def negotiate(value: bytes, max_message_size: int) -> Any:
    return negotiate_deflate(parse_extensions(value), max_message_size)


@pytest.mark.parametrize(("offered", "answer"), [
    ("", ""),
    ("; server_no_context_takeover", "; server_no_context_takeover"),
    ("; client_no_context_takeover", "; client_no_context_takeover"),
    ("; client_max_window_bits", "; client_max_window_bits=12"),
    ("; client_max_window_bits=15", "; client_max_window_bits=12"),
    ("; client_max_window_bits=10", "; client_max_window_bits=10"),
    ('; client_max_window_bits="9"', "; client_max_window_bits=9"),
    ("; client_max_window_bits=8", ""),
    ("; server_max_window_bits=15", "; server_max_window_bits=15"),
    ("; server_max_window_bits=9", "; server_max_window_bits=9"),
    (
        ";server_max_window_bits=10 ; SERVER_no_context_takeover;client_max_window_bits",
        "; server_no_context_takeover; server_max_window_bits=10; client_max_window_bits=12",
    ),
])  # fmt: skip
def test_offer_is_accepted_as_the_client_allows(offered: str, answer: str) -> None:
    negotiated = negotiate((NAME + offered).encode(), 0)
    assert negotiated is not None
    assert negotiated[0] == NAME + answer


@pytest.mark.parametrize("parameters", [
    "server_max_window_bits", "server_max_window_bits=8", "server_max_window_bits=7", "server_max_window_bits=16",
    "server_max_window_bits=09", "server_max_window_bits=+9", "server_max_window_bits=1_0", "unknown", "unknown=1",
    "client_max_window_bits=0", "client_max_window_bits=016", "client_max_window_bits; client_max_window_bits",
    "server_no_context_takeover=1", "client_no_context_takeover=true",
    "server_no_context_takeover; SERVER_NO_CONTEXT_TAKEOVER",
])  # fmt: skip
def test_offer_that_cannot_be_met_is_passed_over_for_the_next(parameters: str) -> None:
    offer = f"{NAME}; {parameters}"
    assert negotiate(offer.encode(), 0) is None
    negotiated = negotiate(f"{offer}, other; x=y, {NAME}; server_no_context_takeover, {NAME}".encode(), 0)
    assert negotiated is not None
    assert negotiated[0] == f"{NAME}; server_no_context_takeover"


@pytest.mark.parametrize("value", [b"", b"x-webkit-deflate-frame", b"permessage-bzip2, permessage-brotli"])
def test_other_extensions_are_not_negotiated(value: bytes) -> None:
    assert negotiate(value, 0) is None


def test_answer_is_understood_by_a_client() -> None:
    negotiated = negotiate(b"permessage-deflate; server_max_window_bits=11; client_max_window_bits", 0)
    assert negotiated is not None
    parameters = dict(part.strip().split("=") for part in negotiated[0].split(";")[1:])
    response = PerMessageDeflateResponse.parse({name: [value] for name, value in parameters.items()})
    assert (response.server_max_window_bits, response.client_max_window_bits) == (11, 12)


def opened(offered: str = "", max_message_size: int = 0) -> Deflate:
    negotiated = negotiate((NAME + offered).encode(), max_message_size)
    assert negotiated is not None
    deflate: Deflate = Deflate.create_from_offer_accept(True, negotiated[1])
    return deflate


def inflated(deflate: Deflate, *pieces: bytes) -> bytes:
    deflate.start_decompress_message()
    output = b"".join(map(deflate.decompress_message_data, pieces))
    deflate.end_decompress_message()
    return output


@pytest.mark.parametrize(
    ("offered", "bits"), [("", 12), ("; server_max_window_bits=15", 12), ("; server_max_window_bits=9", 9)]
)
def test_windows_are_small(offered: str, bits: int) -> None:
    deflate = opened(offered)
    assert (deflate.server_max_window_bits, deflate.mem_level, deflate.client_max_window_bits) == (bits, 5, 15)
    assert opened("; client_max_window_bits").client_max_window_bits == 12


def test_limit_counts_each_message_alone() -> None:
    deflate = opened(max_message_size=1000)
    for _ in range(3):
        assert inflated(deflate, deflated(bytes(1000))) == bytes(1000)


def test_no_more_is_inflated_than_the_limit_and_one_byte() -> None:
    deflate = opened(max_message_size=1000)
    deflate.start_decompress_message()
    with pytest.raises(PayloadExceededError):
        deflate.decompress_message_data(deflated(bytes(10_000_000)))
    assert deflate._decompress_message_size == 1001


def test_without_a_limit_all_is_inflated() -> None:
    assert len(inflated(opened(), deflated(bytes(10_000_000)))) == 10_000_000


def test_inflater_goes_on_after_final_blocks_and_keeps_nothing_of_them() -> None:
    deflate = opened()
    for _ in range(100):
        assert inflated(deflate, bytes.fromhex("f348cdc9c9070000")) == b"Hello"
    assert deflate._decompressor.unused_data == b""


def test_message_that_ends_within_a_block_is_corrupt() -> None:
    with pytest.raises(PayloadCorruptError, match="end is missing"):
        inflated(opened(), deflated(b"*" * 100, level=0)[:50])


def test_client_without_context_gets_an_inflater_for_each_message() -> None:
    deflate = opened("; client_no_context_takeover")
    inflated(deflate, deflated(b"Hello"))
    first = deflate._decompressor
    inflated(deflate, deflated(b"Hello"))
    assert deflate._decompressor is not first
