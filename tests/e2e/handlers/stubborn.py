"""An ASGI app that hears of its client's leaving and goes on."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from dialback import asgi_handler

NOTES = Path(os.environ["E2E_NOTES"])


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Notes when it heard, and when and how it ended: by itself, three seconds later, or cancelled."""
    name, how = scope["path"].rpartition("/")[2], "cancelled"
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"begun\n", "more_body": True})
    heard = (await receive())["type"]
    with (NOTES / name).open("a") as file:
        file.write(f"{heard} {time.time()!r}\n")
    try:
        await asyncio.sleep(3)
        how = "by itself"
    finally:
        with (NOTES / name).open("a") as file:
            file.write(f"{how} {time.time()!r}\n")


handler = asgi_handler(app, lifespan="off")
