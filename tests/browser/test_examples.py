"""The examples that are pages, used as people use them, on a wide screen and on a phone's."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.lag import Lag
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack
from tests.examples.test_examples import EXAMPLES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
SCREENS = {
    "wide": {"viewport": {"width": 1000, "height": 700}},
    "phone": {
        "viewport": {"width": 360, "height": 720},
        "device_scale_factor": 2,
        "color_scheme": "dark",
        "is_mobile": True,
        "has_touch": True,
    },
}
UNSEEN = 4
"""Tokens, each 40 ms: made while the client was leaving."""
CONFIRMED = re.compile(
    r"Stopped\. The function confirmed it (\d+) ms later: (\d+) tokens made\. A second on: still (\d+)\."
)


@pytest.fixture(params=list(SCREENS))
def screen(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A tab in which nothing may go wrong unseen."""
    with browser.new_context(**SCREENS[request.param]) as context:
        context.set_default_timeout(20_000)
        page = context.new_page()
        mistakes: list[str] = []
        page.on("pageerror", lambda error: mistakes.append(str(error)))
        yield page
        assert not mistakes


@pytest.fixture
def photograph(screen: Page, shots: Path, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """A screenshot, and nothing may stick out at the side."""

    def take(name: str) -> None:
        screen.screenshot(path=shots / f"{name}-{request.node.callspec.id}.png")
        assert screen.evaluate("document.documentElement.scrollWidth <= innerWidth")

    return take


@pytest.fixture
def chat(shared_stack: Callable[..., Stack]) -> Stack:
    return shared_stack("chat.py:handler", root=EXAMPLES, environments=3, serve={"affinity": "header:chat-id"})


def ask(page: Page, question: str) -> None:
    page.get_by_role("textbox", name="Your question").fill(question)
    page.keyboard.press("Enter")


def last(page: Page, part: str) -> str:
    return page.locator(f".assistant .{part}").last.inner_text()


def told(page: Page, text: str) -> None:
    page.locator(".assistant .fate", has_text=text).last.wait_for()


def until_tokens_come(page: Page, count: int = 10) -> None:
    page.wait_for_function(f"parseInt(document.querySelector('.live .fate')?.textContent) >= {count}")


def test_progress_fills_its_bar(
    screen: Page, shared_stack: Callable[..., Stack], photograph: Callable[[str], None]
) -> None:
    stack = shared_stack("progress.py:handler", root=EXAMPLES, environments=4)
    screen.goto(stack.url, wait_until="commit")
    bar = screen.get_by_role("progressbar")
    widths = []
    while not widths or widths[-1] < 100:
        widths.append(int(bar.get_attribute("aria-valuenow") or 0))
    assert widths == sorted(widths) and len(set(widths)) > 5, "the page is there long before its end"
    screen.get_by_text("Done").wait_for()
    photograph("progress")


def test_stop_stops_the_function(screen: Page, chat: Stack, lag: Lag, photograph: Callable[[str], None]) -> None:
    screen.goto(chat.url)
    ask(screen, "What does Stop do?")
    until_tokens_come(screen)
    before = last(screen, "text")
    until_tokens_come(screen, 20)
    assert last(screen, "text").startswith(before) and last(screen, "text") != before, "tokens come one by one"
    screen.get_by_role("button", name="Stop").click()
    told(screen, "A second on")
    found = CONFIRMED.search(last(screen, "fate"))
    assert found and found[2] == found[3]
    chat.function.line(rf"{{'state': 'stopped', 'tokens': {found[2]}}}")
    unseen = int(found[2]) - len(last(screen, "text").split())
    assert 0 <= unseen <= UNSEEN + lag.worst / 0.04, "what was made, but for what was on its way"
    photograph("chat-stopped")

    ask(screen, "And if I let you finish?")
    screen.locator(".complete").wait_for()
    assert last(screen, "text").startswith("Question 2: “And if I let you finish?”"), "the function has the history"
    assert last(screen, "text").endswith("word by word. ")
    screen.reload()
    assert screen.locator("li").count() == 4, "the page keeps the history"
    photograph("chat-history")
    screen.get_by_role("button", name="New chat").click()
    assert screen.locator("li").count() == 0 and screen.get_by_text("Ask, then press Stop").is_visible()


def test_escape_stops_too(screen: Page, chat: Stack) -> None:
    screen.goto(chat.url)
    screen.get_by_role("button", name="Tell me a long story").click()
    until_tokens_come(screen, 3)
    screen.keyboard.press("Escape")
    told(screen, "The function confirmed it")


def test_who_leaves_stops_the_function(screen: Page, chat: Stack) -> None:
    screen.goto(chat.url)
    lines = len(chat.function.lines)
    ask(screen, "Am I missed?")
    until_tokens_come(screen)
    screen.goto("about:blank")
    chat.function.line("{'state': 'stopped'", after=lines)
    screen.go_back()
    told(screen, "You left while this came")


def test_errors_are_shown(screen: Page, fresh_stack: Callable[..., Stack], photograph: Callable[[str], None]) -> None:
    stack = fresh_stack("chat.py:handler", root=EXAMPLES, environments=1, serve={"session-grace": 1, "retry-count": 0})
    screen.goto(stack.url)
    ask(screen, "<b>Are you there?</b>")
    until_tokens_come(screen, 5)
    os.kill(stack.environment, signal.SIGKILL)
    told(screen, "Cut off after")
    assert "<b>Are you there?</b>" in last(screen, "text"), "text is text"
    stack.function.interrupt()
    wait_for(lambda: stack.function.exit_code is not None)
    ask(screen, "And now?")
    screen.wait_for_function("document.querySelectorAll('.failed').length === 2")
    assert re.search(r"The function .+\. \(50\d, request [0-9a-f]{32}\)", last(screen, "fate"))
    photograph("chat-errors")
