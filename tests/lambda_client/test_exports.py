"""The public names: what is exported works, and what works is exported."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import dialback
import lambda_client
import lambda_client.testing

ROOT = Path(__file__).resolve().parents[2]

NAMES = [
    "ClientDisconnected",
    "HttpResponseStream",
    "Request",
    "RequestIdFilter",
    "Response",
    "SyncRequest",
    "WebSocket",
    "WebSocketClosed",
    "asgi_handler",
    "current_request",
    "pipeline",
    "sse",
    "stream_handler",
    "streamify_response",
    "wsgi_handler",
]


def test_the_public_names_are_these() -> None:
    assert lambda_client.__all__ == NAMES
    assert all(getattr(lambda_client, name).__module__.startswith("lambda_client.") for name in NAMES)


def test_dialback_offers_the_same() -> None:
    assert dialback.__all__ == NAMES
    assert all(getattr(dialback, name) is getattr(lambda_client, name) for name in NAMES)


def test_the_test_client_is_public_where_tests_import_it() -> None:
    names = ["BrokenResponse", "TestClient", "TestResponse", "TestWebSocket", "WebSocketRefused"]
    assert lambda_client.testing.__all__ == names


def test_what_few_functions_need_is_loaded_when_it_is_used() -> None:
    code = "import sys, dialback; print([m for m in sys.modules if m.startswith('lambda_client.')]); dialback.sse"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {f"lambda_client.{name}" for name in lambda_client._LATER.values()} & set(ast.literal_eval(done.stdout))


@pytest.mark.parametrize("module", [dialback, lambda_client])
def test_a_name_that_is_not_there_is_an_attribute_error(module: ModuleType) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018
