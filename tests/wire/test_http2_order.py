"""Priorities (RFC 9218): how they are read, and the order that they make."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from asgiserver.wire.http2_order import UNASKED, Order, Priority, read_priority


@dataclass(eq=False)
class Stream:
    name: str
    priority: Priority = UNASKED


@pytest.mark.parametrize(
    ("value", "priority"),
    [
        (b"", (3, False)),
        (b"u=0", (0, False)),
        (b"u=7, i", (7, True)),
        (b"i,u=5", (5, True)),
        (b"i=?0", (3, False)),
        (b"i=?1;a=b, u=1;x", (1, True)),
        (b"u=1, u=2", (2, False)),
        (b"x=y, u=4, z", (4, False)),
        # What is out of bounds or of another type is ignored.
        (b"u=8", (3, False)),
        (b"u=-1", (3, False)),
        (b"u=1.5", (3, False)),
        (b"u", (3, False)),
        (b"i=1", (3, False)),
        (b"u=1, ?", (1, False)),
        (b"\xff\x00", (3, False)),
        # It would take long to read, and no client sends it.
        (b"u=1" + b",i" * 8000, (3, False)),
    ],
)
def test_reading(value: bytes, priority: Priority) -> None:
    assert read_priority(value) == priority


def served(order: Order[Stream], count: int) -> str:
    return "".join(stream.name if (stream := order.next()) is not None else "-" for _ in range(count))


class TestOrder:
    def test_nothing_is_there(self) -> None:
        assert Order[Stream]().next() is None

    def test_the_most_urgent_is_served_until_it_leaves(self) -> None:
        order: Order[Stream] = Order()
        a, b = Stream("a", (5, True)), Stream("b", (1, False))
        order.add(a)
        order.add(b)
        assert served(order, 3) == "bbb"
        order.discard(b)
        assert served(order, 2) == "aa"
        order.discard(a)
        assert served(order, 1) == "-"
        assert len(order) == 0

    def test_those_that_are_useful_in_pieces_share(self) -> None:
        order: Order[Stream] = Order()
        for name in "abc":
            order.add(Stream(name, (3, True)))
        assert served(order, 7) == "abcabca"

    def test_those_that_are_useful_as_a_whole_go_one_after_the_other_and_first(self) -> None:
        order: Order[Stream] = Order()
        for name, incremental in (("a", True), ("b", False), ("c", False)):
            order.add(Stream(name, (3, incremental)))
        assert served(order, 3) == "bbb"

    def test_one_that_is_added_again_keeps_its_place(self) -> None:
        order: Order[Stream] = Order()
        a, b = Stream("a", (3, False)), Stream("b", (3, False))
        for stream in (a, b, a):
            order.add(stream)
        assert served(order, 1) == "a"
        assert len(order) == 2

    def test_another_priority_is_another_place(self) -> None:
        order: Order[Stream] = Order()
        a, b = Stream("a"), Stream("b")
        order.add(a)
        order.add(b)
        b.priority = (0, False)
        order.add(b)
        assert served(order, 2) == "bb"
        order.discard(b)
        order.discard(b)
        assert served(order, 2) == "aa"
