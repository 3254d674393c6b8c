"""An HTML page that fills its own progress bar while it streams: open http://127.0.0.1:8080/ in a browser."""

import asyncio
from collections.abc import AsyncIterator

from dialback import Request, Response, stream_handler

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Streaming from Lambda</title>
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<style>body{font:1rem/1.6 system-ui,sans-serif;max-width:40rem;margin:12vh auto;padding:0 1rem} h1{font-size:1.5rem}
#bar,#fill{height:1rem;border-radius:.5rem} #bar{background:#8883}
#fill{width:0;background:#2f6bea;transition:width .15s} p{font-variant-numeric:tabular-nums}</style>
<h1>One page, still arriving</h1>
<div id="bar" role="progressbar" aria-label="Arrived"><div id="fill"></div></div><p id="text">0 %</p>
<script>function step(percent) {
  document.getElementById("fill").style.width = `${percent}%`;
  document.getElementById("text").textContent = `${percent} %`;
  document.getElementById("bar").ariaValueNow = percent;
}</script>
"""


@stream_handler
async def handler(request: Request) -> Response:
    async def page() -> AsyncIterator[str]:
        yield PAGE
        for percent in range(5, 101, 5):
            await asyncio.sleep(0.15)
            yield f"<script>step({percent})</script>\n"
        yield "<p>Done: the connection closes now.</p></html>\n"

    return Response(page(), headers={"content-type": "text/html; charset=utf-8"})
