"""Settings common to every test; no fixtures, which live beside the tests that use them."""

from __future__ import annotations

from hypothesis import settings

# A deadline per example measures the machine, not the code. pytest-timeout still bounds each test.
settings.register_profile("dialback", deadline=None, print_blob=True)
settings.load_profile("dialback")
