"""Which event loops the gateway's tests run on: those of the data path on both that the gateway can run on, the rest
on one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

DATA_PATH = ("test_ingress", "test_endpoint", "test_link", "test_server")


@pytest.hookimpl(tryfirst=True)
def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.name.startswith(DATA_PATH):
        factories["uvloop"] = uvloop.new_event_loop
    return factories
