"""An HTML page that fills its own progress bar while it streams: open http://127.0.0.1:8080/ in a browser."""

import asyncio
from collections.abc import AsyncIterator

from dialback import Request, Response, stream_handler

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Streaming from Lambda</title>
<style>body{font:16px system-ui;max-width:40rem;margin:4rem auto} .bar,.fill{height:1.5rem;border-radius:.75rem}
.bar{background:#e5e7eb} .fill{width:0;background:#2563eb;transition:width .15s}</style>
<h1>One page, still arriving</h1><div class="bar"><div class="fill" id="fill"></div></div><p id="text">0 %</p>
"""


@stream_handler
async def handler(request: Request) -> Response:
    async def page() -> AsyncIterator[str]:
        yield PAGE
        for percent in range(5, 101, 5):
            await asyncio.sleep(0.15)
            yield (
                f"<script>fill.style.width='{percent}%';"
                f"document.getElementById('text').textContent='{percent} %'</script>\n"
            )
        yield "<p>Done: the connection closes now.</p></html>\n"

    return Response(page(), headers={"content-type": "text/html; charset=utf-8"})
