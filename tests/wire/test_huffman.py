"""The Huffman code of RFC 7541, both ways, and against the tables and the decoder of others."""

from __future__ import annotations

import pytest
from hpack.exceptions import HPACKDecodingError
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given
from hypothesis import strategies as st

from asgiserver.wire.huffman import HuffmanError, decode, encode


def packed(bits: str) -> bytes:
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))


@pytest.mark.parametrize(("text", "data"), [
    (b"", ""),
    # RFC 7541 Appendix C.4 and C.6.
    (b"www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
    (b"no-cache", "a8eb10649cbf"),
    (b"custom-key", "25a849e95ba97d7f"),
    (b"custom-value", "25a849e95bb8e8b4bf"),
    (b"302", "6402"),
    (b"private", "aec3771a4b"),
    (b"Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
    (b"https://www.example.com", "9d29ad171863c78f0b97c8e9ae82ae43d3"),
    (b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
     "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"),
])  # fmt: skip
def test_examples_of_the_rfc(text: bytes, data: str) -> None:
    assert encode(text) == bytes.fromhex(data)
    assert decode(bytes.fromhex(data)) == text


@pytest.mark.parametrize("octet", range(256))
def test_each_code_is_that_of_appendix_b(octet: int) -> None:
    bits = f"{REQUEST_CODES[octet]:0{REQUEST_CODES_LENGTH[octet]}b}"
    data = packed(bits + "1" * (-len(bits) % 8))
    assert encode(bytes([octet])) == data
    assert decode(data) == bytes([octet])


@pytest.mark.parametrize("bits", [
    # 0 is 00000 and the padding 111: other padding, more than seven bits of it, and a code that is cut.
    "00000110", "00000000", "0000011111111111", "11111111", "1111111111111111", "11111110", "1111101111111111",
    # EOS alone, and between two texts.
    "1" * 32, "00000" + "1" * 30 + "00000", "1" * 30 + "00",
])  # fmt: skip
def test_wrong_ends_are_refused(bits: str) -> None:
    with pytest.raises(HuffmanError):
        decode(packed(bits))


@given(st.binary(max_size=200))
def test_what_is_encoded_is_decoded(text: bytes) -> None:
    assert decode(encode(text)) == text


@given(st.binary(max_size=60))
def test_others_decode_the_same(data: bytes) -> None:
    try:
        expected: bytes | None = decode_huffman(data)
    except HPACKDecodingError:
        expected = None
    try:
        made: bytes | None = decode(data)
    except HuffmanError:
        made = None
    assert made == expected
