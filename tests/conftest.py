"""Settings common to every test; no fixtures, which live beside the tests that use them."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.build import IS_COMPILED

# A deadline per example measures the machine, not the code. pytest-timeout still bounds each test.
settings.register_profile("dialback", deadline=None, print_blob=True)
settings.load_profile("dialback")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what the classes and constants of a compiled build do not allow."""
    for item in items:
        if IS_COMPILED and (marker := item.get_closest_marker("interpreted")) is not None:
            item.add_marker(pytest.mark.skip(reason=f"compiled: {marker.args[0]}"))
