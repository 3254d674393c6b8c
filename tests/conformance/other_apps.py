"""Apps that need a server of their own: those whose lifespan fails, and one that is mounted below a path."""

from __future__ import annotations

import json
from typing import Any

from dialback import asgi_handler


async def answer(scope: Any, send: Any) -> None:
    said = json.dumps([scope["root_path"], scope["path"], scope["raw_path"].decode()]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]})
    await send({"type": "http.response.body", "body": said})


async def raises(scope: Any, receive: Any, send: Any) -> None:
    """Knows no lifespan, or fails in it: a server cannot tell."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await answer(scope, send)


async def fails(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        return
    await answer(scope, send)


async def returns(scope: Any, receive: Any, send: Any) -> None:
    """Says nothing of its startup."""
    if scope["type"] != "lifespan":
        await answer(scope, send)


on_raises = asgi_handler(raises, lifespan="on")
on_fails = asgi_handler(fails, lifespan="on")
on_returns = asgi_handler(returns, lifespan="on")
auto_raises = asgi_handler(raises, lifespan="auto")
auto_fails = asgi_handler(fails, lifespan="auto")
auto_returns = asgi_handler(returns, lifespan="auto")
off_fails = asgi_handler(fails, lifespan="off")
mounted = asgi_handler(returns, lifespan="off", root_path="/api")

UVICORN = {
    **{f"{mode}_{app}": (app, "--lifespan", mode) for mode in ("on", "auto") for app in ("raises", "fails", "returns")},
    "off_fails": ("fails", "--lifespan", "off"),
    "mounted": ("returns", "--lifespan", "off", "--root-path", "/api"),
}
"""The same for uvicorn: the app, and flags."""
