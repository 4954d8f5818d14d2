"""What an HTTP/2 peer may do how often."""

from __future__ import annotations

import pytest

from asgiserver.wire.http2_limits import Budget, Kind

MOST = [(Kind.RESET, 200, 33), (Kind.IDLE, 1000, 330)]


def spent(budget: Budget, kind: Kind, now: float) -> int:
    """How often it may be done at once."""
    count = 0
    while count < 10_000 and budget.spend(kind, now):
        count += 1
    return count


@pytest.mark.parametrize(("kind", "most", "rate"), MOST)
@pytest.mark.parametrize("now", [0.0, 1234567.8])
def test_so_many_at_once_and_so_many_a_second(kind: Kind, most: int, rate: int, now: float) -> None:
    budget = Budget()
    # The clock's fractions may cost one.
    assert most - 1 <= spent(budget, kind, now) <= most
    assert spent(budget, kind, now) == 0
    assert rate - 1 <= spent(budget, kind, now + 1) <= rate + 1
    assert most - 1 <= spent(budget, kind, now + 1000) <= most


@pytest.mark.parametrize(("kind", "most", "rate"), MOST)
def test_a_peer_below_the_rate_goes_on_for_ever(kind: Kind, most: int, rate: int) -> None:
    """A count for the connection's whole life would end a proxy's connection."""
    budget = Budget()
    assert all(budget.spend(kind, number / (rate * 0.99)) for number in range(20 * most))


def test_one_kind_takes_nothing_from_the_other() -> None:
    budget = Budget()
    spent(budget, Kind.RESET, 0.0)
    assert budget.spend(Kind.IDLE, 0.0)


def test_connections_have_budgets_of_their_own() -> None:
    spent(Budget(), Kind.RESET, 0.0)
    assert Budget().spend(Kind.RESET, 0.0)
