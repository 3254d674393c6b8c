"""The public names: what is exported works, and what works is exported."""

from __future__ import annotations

import dialback
import lambda_client
import lambda_client.testing

NAMES = [
    "ClientDisconnected",
    "Request",
    "RequestIdFilter",
    "Response",
    "SyncRequest",
    "asgi_handler",
    "current_request",
    "stream_handler",
]


def test_the_public_names_are_these() -> None:
    assert lambda_client.__all__ == NAMES
    assert all(getattr(lambda_client, name).__module__.startswith("lambda_client.") for name in NAMES)


def test_dialback_offers_the_same() -> None:
    assert dialback.__all__ == NAMES
    assert all(getattr(dialback, name) is getattr(lambda_client, name) for name in NAMES)


def test_the_test_client_is_public_where_tests_import_it() -> None:
    assert lambda_client.testing.__all__ == ["BrokenResponse", "TestClient", "TestResponse"]
