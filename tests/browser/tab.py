"""A tab as one more client of tests/clients: its `fetch` and its `WebSocket`, with the same orders as all others."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from tests.clients.conversation import Heard, Orders, packed, unpacked
from tests.clients.seen import Ask, Reads, Seen

if TYPE_CHECKING:
    from playwright.sync_api import Page

FETCH = """
async ({url, method, body, leaveAfter, timeout}) => {
  const seen = {status: 0, headers: {}, pieces: [], error: ""};
  const stop = new AbortController();
  const encode = (bytes) => new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.replace(/^.*,/, ""));
    reader.readAsDataURL(new Blob([bytes]));
  });
  try {
    const response = await fetch(url, {
      method,
      signal: AbortSignal.any([stop.signal, AbortSignal.timeout(timeout)]),
      ...(body !== null && {body: await (await fetch("data:;base64," + body)).blob()}),
    });
    seen.status = response.status;
    seen.headers = Object.fromEntries(response.headers);
    const reader = response.body?.getReader();
    for (;reader;) {
      const {value, done} = await reader.read();
      if (done) break;
      seen.pieces.push([Date.now() / 1000, value]);
      if (seen.pieces.length === leaveAfter) stop.abort();
    }
  } catch (error) {
    if (!stop.signal.aborted) seen.error = `${error.name}: ${error.message}`;
  }
  for (const piece of seen.pieces) piece[1] = await encode(piece[1]);
  return seen;
}
"""

TALK = """
(orders) => new Promise((resolve) => {
  const decode = (data) => Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const encode = (data) => btoa(Array.from(new Uint8Array(data), (byte) => String.fromCharCode(byte)).join(""));
  const heard = {protocol: "", said: []};
  const socket = new WebSocket(orders.url, orders.subprotocols);
  const end = () => {
    if (heard.said.length < orders.replies) return;
    if (orders.vanishes) resolve(heard);
    else if (orders.code) socket.close(orders.code, orders.reason);
  };
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    heard.protocol = socket.protocol;
    for (const [type, data] of orders.says) socket.send(type === "text" ? data : decode(data));
    end();
  };
  socket.onmessage = ({data}) => {
    heard.said.push(typeof data === "string" ? ["text", data] : ["binary", encode(data)]);
    end();
  };
  socket.onclose = ({code, reason}) => resolve({...heard, code, reason});
})
"""


class Tab:
    """Begins with a page of the function's origin."""

    reads, shows_trailers, shows_refusal = Reads.AFTER, False, False
    cut_error = "TypeError: network error"
    timeout_error = "TimeoutError: signal timed out"

    def __init__(self, page: Page) -> None:
        self._page = page

    def fetch(self, ask: Ask, seen: Seen) -> None:
        assert ask.body is None or isinstance(ask.body, bytes), "Chromium streams no upload over HTTP/1.1"
        asked = {
            "url": ask.url,
            "method": ask.method,
            "body": None if ask.body is None else base64.b64encode(ask.body).decode(),
            "leaveAfter": ask.leave_after,
            "timeout": ask.timeout * 1000,
        }
        found = self._page.evaluate(FETCH, asked)
        seen.status, seen.headers, seen.error = found["status"], found["headers"], found["error"]
        seen.pieces += [(came, base64.b64decode(piece)) for came, piece in found["pieces"]]

    def talk(self, orders: Orders) -> Heard:
        said = {**vars(orders), "says": [packed(message) for message in orders.says]}
        heard = self._page.evaluate(TALK, said)
        if orders.vanishes:
            self._page.close()
        return Heard(**{**heard, "said": [unpacked(*message) for message in heard["said"]]})
