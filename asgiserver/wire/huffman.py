"""The Huffman code of HPACK's strings (RFC 7541 §5.2 and Appendix B); pure.

The decoder is an automaton whose input are whole bytes: a state is what was read of a code that is not complete, and
each pair of state and byte gives the decoded bytes and the next state. There are 256 states, so at most 65,536 pairs;
each is made when it is first met, as the texts of all clients together need a small part of them.
"""

from __future__ import annotations

__all__ = ["HuffmanError", "decode", "encode"]

#: The octets by the length of their codes, in bits. Codes of a length follow each other in the order of their octets,
#: and the first of a length follows the last that is shorter (a canonical code).
_OCTETS = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\x00$@[]~",
    14: b"^}",
    15: b"<`{",
    19: bytes.fromhex("5cc3d0"),
    20: bytes.fromhex("808283a2b8c2e0e2"),
    21: bytes.fromhex("99a1a7acb0b1b3d1d8d9e3e5e6"),
    22: bytes.fromhex("8184858688929a9ca0a3a4a9aaadb2b5b9babbbdbec4c6e4e8e9"),
    23: bytes.fromhex("0187898a8b8c8d8f93959697989b9d9ea5a6a8aeafb4b6b7bcbfc5e7ef"),
    24: bytes.fromhex("098e9091949fabced7e1eced"),
    25: bytes.fromhex("c7cfeaeb"),
    26: bytes.fromhex("c0c1c8c9cacdd2d5dadbeef0f2f3ff"),
    27: bytes.fromhex("cbccd3d4d6dddedff1f4f5f6f7f8fafbfcfdfe"),
    28: bytes.fromhex("020304050607080b0c0e0f1011121314151718191a1b1c1d1e1f7fdcf9"),
    30: bytes.fromhex("0a0d16"),
}


class HuffmanError(Exception):
    """The bytes are no text of this code."""


def _codes() -> list[str]:
    """The code of each octet, as a text of 0 and 1."""
    codes = [""] * 256
    code = length = 0
    for size, octets in _OCTETS.items():
        code <<= size - length
        length = size
        for octet in octets:
            codes[octet] = f"{code:0{size}b}"
            code += 1
    return codes


_CODES = _codes()
_OCTET_OF = {code: octet for octet, code in enumerate(_CODES)}
#: The code that stands for the end of the text, and never in one.
_EOS = "1" * 30


#: A state: what each byte adds to it, as far as that was met: the octets that it completes, and the state behind them.
#: Plain dictionaries, as a subclass is slower to ask.
_Steps = dict[int, tuple[bytes, "_Steps"]]

_START: _Steps = {}
#: The states by the bits of the code that is begun, and these bits by the identity of the state.
_STATES = {"": _START}
_BEGUN = {id(_START): ""}


def _step(begun: str, byte: int) -> tuple[bytes, _Steps]:
    octets = bytearray()
    for bit in f"{byte:08b}":
        begun += bit
        octet = _OCTET_OF.get(begun)
        if octet is not None:
            octets.append(octet)
            begun = ""
        elif begun == _EOS:
            raise HuffmanError("The code for the end of a text stands in one.")
    state = _STATES.setdefault(begun, {})
    _BEGUN[id(state)] = begun
    return bytes(octets), state


def _learn(data: bytes) -> None:
    """Make the steps of ``data`` that were not met before."""
    state = _START
    for byte in data:
        if byte not in state:
            state[byte] = _step(_BEGUN[id(state)], byte)
        _, state = state[byte]


def decode(data: bytes) -> bytes:
    """The text that ``data`` stands for.

    :raises HuffmanError: the end of ``data`` is neither a code nor the first up to 7 bits of the code EOS, or EOS
        stands in ``data``.
    """
    state = _START
    text: list[bytes] = []
    try:
        for byte in data:
            octets, state = state[byte]
            text.append(octets)
    except KeyError:
        _learn(data)
        return decode(data)
    # RFC 7541 §5.2: what is begun has to be padding.
    begun = _BEGUN[id(state)]
    if len(begun) > 7 or "0" in begun:
        raise HuffmanError("The padding of a text is not the beginning of the code for its end.")
    return b"".join(text)


def encode(text: bytes) -> bytes:
    """``text`` in this code."""
    bits = text.decode("latin-1").translate(_CODES)
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""
