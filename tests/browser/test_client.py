"""What holds for every client holds for a browser's `fetch` and `WebSocket`: the tests of tests/clients, in a tab."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.tab import Tab
from tests.clients.test_http import (
    note,
    test_a_client_that_leaves_stops_the_function,
    test_a_client_that_loses_its_patience_stops_the_function,
    test_a_function_that_fails_is_a_502_with_a_problem_document,
    test_a_head_request_has_a_head_alone,
    test_a_large_body_comes_back_while_it_is_sent_where_the_client_reads_meanwhile,
    test_a_large_download_is_whole,
    test_a_response_that_is_cut_is_an_error_of_the_client,
    test_an_upload_is_whole,
    test_each_chunk_is_there_when_it_is_written,
    test_trailers_where_the_client_shows_them,
)
from tests.clients.test_websockets import (
    key,
    orders,
    test_a_refusal_is_the_functions_own,
    test_a_subprotocol_is_agreed_on,
    test_messages_come_back_whole,
    test_the_client_hears_the_functions_close,
    test_the_function_hears_the_clients_close,
)
from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = [
    "key",
    "note",
    "test_a_client_that_leaves_stops_the_function",
    "test_a_client_that_loses_its_patience_stops_the_function",
    "test_a_function_that_fails_is_a_502_with_a_problem_document",
    "test_a_head_request_has_a_head_alone",
    "test_a_large_body_comes_back_while_it_is_sent_where_the_client_reads_meanwhile",
    "test_a_large_download_is_whole",
    "test_a_refusal_is_the_functions_own",
    "test_a_response_that_is_cut_is_an_error_of_the_client",
    "test_a_subprotocol_is_agreed_on",
    "test_an_upload_is_whole",
    "test_each_chunk_is_there_when_it_is_written",
    "test_messages_come_back_whole",
    "test_the_client_hears_the_functions_close",
    "test_the_function_hears_the_clients_close",
    "test_trailers_where_the_client_shows_them",
]
pytestmark = pytest.mark.browser

STREAMED_UPLOAD = """
async () => {
  const body = new ReadableStream({start(controller) { controller.enqueue(new Uint8Array(10)); controller.close(); }});
  return fetch("/digest", {method: "POST", body, duplex: "half"}).then(String, String);
}
"""
EARLY_ANSWER = """
async (size) => {
  const body = new Blob([new Uint8Array(size)]);
  const signal = AbortSignal.timeout(3000);
  const read = async (response) => (await response.blob()).size;
  return fetch("/echo", {method: "POST", body, signal}).then(read).catch(({name}) => name);
}
"""
ONE_TOO_MANY = """
async (count) => {
  const stops = [];
  for (let index = 0; index < count; index++) {
    stops.push(new AbortController());
    await fetch(`/process?${index}`, {signal: stops[index].signal});
  }
  let answered = false;
  const last = fetch("/hello").then(() => (answered = true));
  await new Promise((opened) => (new WebSocket(location.origin.replace("http", "ws"))).onopen = opened);  // has its own
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const waited = !answered;
  stops[0].abort();
  await last;
  stops.forEach((stop) => stop.abort());
  return waited;
}
"""


@pytest.fixture
def client(page: Page) -> Tab:
    return Tab(page)


@pytest.fixture
def talkative(stack: Stack) -> Stack:
    return stack


def test_the_function_hears_that_the_tab_was_closed(client: Tab, talkative: Stack, key: str) -> None:
    client.talk(orders(talkative, f"/?key={key}", ["x"], replies=1, vanishes=True))
    wait_for(lambda: talkative.executions(f"{key}-closed"))
    assert talkative.executions(f"{key}-closed")[0] in ("1001", "1006")


def test_chromium_streams_no_upload_over_http_1_1(page: Page) -> None:
    """As docs/apps.md says; it wants HTTP/2 for it, which a proxy before the gateway can speak."""
    assert page.evaluate(STREAMED_UPLOAD) == "TypeError: Failed to fetch"


def test_chromium_reads_when_it_has_sent_all(page: Page) -> None:
    """As docs/apps.md says: before a handler that answers a large upload while it comes, it stands still."""
    assert page.evaluate(EARLY_ANSWER, 1 << 20) == 1 << 20
    assert page.evaluate(EARLY_ANSWER, 64 << 20) == "TimeoutError"


def test_six_streams_are_all_that_a_browser_opens_at_once(page: Page) -> None:
    """As docs/apps.md says: a limit of the browser's for HTTP/1.1, over all tabs."""
    assert page.evaluate(ONE_TOO_MANY, 6) and not page.evaluate(ONE_TOO_MANY, 5)
