"""What people do with pages: read events, send forms, close tabs, open several; what the function sees of it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.lag import Lag
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
AT_ONCE = 0.1
SOON = 0.5
"""Seconds from a tab's leaving, as the browser does it, to the end of the function's code."""
RETRY = 0.3
"""Seconds after which the stream of `events` asks to be called again."""

LISTEN = """
(url) => new Promise((resolve) => {
  const heard = {events: [], errors: []};
  const source = new EventSource(url);
  source.addEventListener("count", ({data, lastEventId}) => heard.events.push([performance.now(), data, lastEventId]));
  source.onerror = () => {
    heard.errors.push([performance.now(), source.readyState]);
    if (source.readyState === EventSource.CLOSED) resolve(heard);
  };
})
"""
SEND = """
([size, note]) => new Promise((resolve) => {
  const form = new FormData();
  form.append("title", "grüße");
  form.append("file", new Blob([new Uint8Array(size)]), "zeros.bin");
  const request = new XMLHttpRequest();
  const progress = [];
  request.upload.onprogress = ({loaded, total}) => progress.push(loaded / total);
  request.onload = () => resolve([progress, JSON.parse(request.response)]);
  request.open("POST", `/form?note=${note}`);
  request.send(form);
})
"""
READ = """
(url) => {
  window.pieces = [];
  window.done = fetch(url).then(async ({body}) => {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (let piece; !(piece = await reader.read()).done;) window.pieces.push([Date.now() / 1000, piece.value]);
  });
}
"""


@pytest.mark.parametrize("how", ["end", "cut"])
def test_events_go_on_where_they_broke_off(page: Page, stack: Stack, how: str) -> None:
    heard = page.evaluate(LISTEN, f"/events?how={how}&note=events-{how}")
    assert [(data, last) for _, data, last in heard["events"]] == [(f"number\n{n}", str(n)) for n in range(1, 10)]
    assert stack.executions(f"events-{how}") == [f"from {first}" for first in (1, 4, 7, 10)]
    assert [state for _, state in heard["errors"]] == [0, 0, 0, 2], "three times again, and closed by the 204"
    for (broke_off, _), index in zip(heard["errors"][:2], (3, 6), strict=True):
        assert heard["events"][index][0] - broke_off > RETRY * 1000 * 0.9


def test_a_form_is_sent_with_progress(page: Page) -> None:
    size = 24 << 20
    progress, parts = page.evaluate(SEND, [size, "sent"])
    assert parts["title"][1:] == [len("grüße".encode()), hashlib.sha256("grüße".encode()).hexdigest()]
    assert parts["file"] == ["zeros.bin", size, hashlib.sha256(bytes(size)).hexdigest()]
    assert progress == sorted(progress) and progress[-1] == 1
    assert len([share for share in progress if share < 0.9]) >= 3, "it was sent at once, and not as it was read"


def test_a_form_is_sent_by_hand(page: Page, stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "grüße.bin"
    file.write_bytes(content := os.urandom(3 << 20))
    page.goto(f"{stack.url}/form")
    page.locator("[name=title]").fill("by hand")
    page.locator("[name=file]").set_input_files(file)
    page.get_by_role("button", name="Send").click()
    page.wait_for_load_state()
    parts = json.loads(page.locator("body").inner_text())
    assert parts["file"][1:] == [len(content), hashlib.sha256(content).hexdigest()]


@pytest.mark.parametrize("how", ["navigate", "reload", "close"])
def test_a_tab_that_leaves_stops_the_function(page: Page, stack: Stack, lag: Lag, how: str) -> None:
    note = f"left-{how}"
    page.evaluate(READ, f"/abandoned?count=400&note={note}")
    page.wait_for_function("window.pieces.length > 2")
    assert "finally" not in stack.executions(note)
    began = time.monotonic()
    leave = {"navigate": lambda: page.goto("about:blank"), "reload": page.reload, "close": page.close}[how]
    leave()
    wait_for(lambda: "finally" in stack.executions(note))
    assert time.monotonic() - began < lag.allow(SOON)


def test_a_tab_that_leaves_in_its_upload_stops_the_function(page: Page, stack: Stack) -> None:
    page.evaluate(f"(size) => void ({SEND})([size, 'uploading'])", 64 << 20)
    wait_for(lambda: stack.executions("uploading") == ["begun"])
    page.close()
    wait_for(lambda: stack.executions("uploading") == ["begun", "gone"])


def test_a_page_that_still_arrives_is_left(page: Page, stack: Stack) -> None:
    """The document itself is the stream."""
    page.goto(f"{stack.url}/document?note=document", wait_until="commit")
    wait_for(lambda: len(stack.executions("document")) > 2)
    page.goto("about:blank")
    wait_for(lambda: "finally" in stack.executions("document"))


def test_several_tabs_stream_side_by_side(page: Page, stack: Stack, lag: Lag) -> None:
    tabs = [page, *(page.context.new_page() for _ in range(4))]
    for tab in tabs[1:]:
        tab.goto(f"{stack.url}/page")
    began = time.monotonic()
    for tab in tabs:
        tab.evaluate(READ, "/ticks?count=10&interval=0.2")
    for tab in tabs:
        tab.evaluate("window.done")
        pieces = tab.evaluate("window.pieces")
        assert len(pieces) == 10
        assert all(came - float(piece.split()[1]) < lag.allow(AT_ONCE) for came, piece in pieces)
    assert time.monotonic() - began < 5 * 2, "they waited for each other"
