"""The alphabet of a token, and the codes of close frames."""

from __future__ import annotations

import re

from asgiserver.asgi.tokens import TCHAR, TOKEN, is_close_code


def test_a_token_is_made_of_the_alphabet_and_of_nothing_else() -> None:
    matched = [octet for octet in range(256) if re.fullmatch(TOKEN, bytes((octet,)))]
    assert bytes(matched) == bytes(sorted(TCHAR))
    assert re.fullmatch(TOKEN, TCHAR)
    assert not re.fullmatch(TOKEN, b"")


def test_close_codes_are_those_that_may_stand_in_a_frame() -> None:
    legal = [code for code in range(5001) if is_close_code(code)]
    assert legal == [*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)]
