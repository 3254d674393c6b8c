"""A headless Chromium, driven by playwright; `make browser` installs both. Without them the tests are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.stack import Stack
from tests.e2e.stacks import fresh_stack, lag, shared_stack

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["fresh_stack", "lag", "shared_stack"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",  # it will not run as root otherwise
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)


@pytest.fixture(scope="module")  # its event loop runs beside the tests, and must not outlive them
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="there is no playwright: make browser")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium: make browser")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def stack(shared_stack: Callable[..., Stack]) -> Stack:
    return shared_stack("browsed.py:handler", environments=3)


@pytest.fixture
def page(browser: Browser, stack: Stack) -> Iterator[Page]:
    """A tab with a page of the function's own origin."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{stack.url}/page")
        yield page


@pytest.fixture
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go, to be looked at."""
    return Path(tmp_path_factory.getbasetemp())
