"""A FastAPI app for large bodies, both ways: streams, a form with a file, a file with ranges.

Annotations are evaluated here, unlike elsewhere: FastAPI reads them.
"""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import FileResponse, StreamingResponse

from dialback import asgi_handler

NOTES = Path(os.environ.get("E2E_NOTES", "."))
BLOCK = bytes(range(251)) * 261
"""64 KiB, nearly; no period of it is one of the wire's."""

app = FastAPI()


@app.get("/produce")
async def produce(size: int) -> StreamingResponse:
    """`size` bytes, made as they leave; their digest is noted."""

    async def body() -> AsyncIterator[bytes]:
        sha = hashlib.sha256()
        left = size
        while left:
            piece = BLOCK[left % 251 :][:left]
            sha.update(piece)
            left -= len(piece)
            yield piece
        (NOTES / "produced").write_text(sha.hexdigest())

    return StreamingResponse(body(), media_type="application/octet-stream", headers={"content-length": str(size)})


@app.put("/digest")
async def digest(request: Request) -> dict[str, Any]:
    sha = hashlib.sha256()
    size = 0
    async for piece in request.stream():
        sha.update(piece)
        size += len(piece)
    return {"size": size, "sha256": sha.hexdigest()}


@app.post("/form")
async def form(file: UploadFile, title: str = "") -> dict[str, Any]:
    sha = hashlib.sha256()
    size = 0
    while piece := await file.read(1 << 20):
        sha.update(piece)
        size += len(piece)
    return {"size": size, "sha256": sha.hexdigest(), "name": file.filename}


@app.api_route("/file", methods=["GET", "HEAD"])
async def file() -> FileResponse:
    return FileResponse(NOTES / "content", media_type="application/octet-stream")


handler = asgi_handler(app)
