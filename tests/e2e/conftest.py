"""What holds for all end-to-end tests."""

from __future__ import annotations

import pytest

from .certificate import Certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))
