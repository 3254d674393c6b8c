"""A server that speaks OpenAI's API, in FastAPI: what a gateway of one's own before a model looks like.

Annotations are evaluated here, as FastAPI wants them.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from dialback import asgi_handler

NOTES = Path(os.environ.get("E2E_NOTES", "."))
MODEL = "slow-1"
INTERVAL = 0.2
"""Seconds between two tokens."""


class Chat(BaseModel):
    model: str
    messages: list[dict[str, Any]]
    stream: bool = False
    stream_options: dict[str, Any] = {}
    max_completion_tokens: int = 5


class ApiError(Exception):
    def __init__(self, status: int, kind: str, code: str, message: str) -> None:
        self.status, self.kind, self.code, self.message = status, kind, code, message


app = FastAPI()


@app.exception_handler(ApiError)
async def in_its_shape(request: Request, error: ApiError) -> JSONResponse:
    body = {"message": error.message, "type": error.kind, "param": None, "code": error.code}
    return JSONResponse({"error": body}, error.status)


def check(request: Request) -> None:
    if request.headers.get("authorization") != "Bearer a-key":
        raise ApiError(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided")


@app.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    check(request)
    return {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "tests"}]}


def completion(kind: str, **choice: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": kind,
        "created": int(time.time()),
        "model": MODEL,
        "choices": [{"index": 0, "finish_reason": None, **choice}],
        "system_fingerprint": str(os.getpid()),
    }


async def tokens(chat: Chat) -> AsyncIterator[str]:
    """Each says when it was made; where the stream is broken off, that is noted under the prompt."""
    try:
        for number in range(chat.max_completion_tokens):
            if number:
                await asyncio.sleep(INTERVAL)
            yield f"{number}@{time.time()!r} "
    except asyncio.CancelledError:
        (NOTES / str(chat.messages[-1]["content"])).write_text(f"{time.time()!r}\n")
        raise


async def events(chat: Chat) -> AsyncIterator[str]:
    import json

    def event(part: dict[str, Any]) -> str:
        return f"data: {json.dumps(part)}\n\n"

    yield event(completion("chat.completion.chunk", delta={"role": "assistant", "content": ""}))
    count = 0
    async for token in tokens(chat):
        count += 1
        yield event(completion("chat.completion.chunk", delta={"content": token}))
    yield event(completion("chat.completion.chunk", delta={}, finish_reason="stop"))
    if chat.stream_options.get("include_usage"):
        usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
        yield event({**completion("chat.completion.chunk"), "choices": [], "usage": usage})
    yield "data: [DONE]\n\n"


@app.post("/v1/chat/completions", response_model=None)
async def chat_completions(request: Request, chat: Chat) -> Response | dict[str, Any]:
    check(request)
    if chat.model != MODEL:
        raise ApiError(404, "invalid_request_error", "model_not_found", f"The model `{chat.model}` does not exist")
    if chat.stream:
        return StreamingResponse(events(chat), media_type="text/event-stream")
    content = "".join([token async for token in tokens(chat)])
    return completion("chat.completion", message={"role": "assistant", "content": content}, finish_reason="stop")


handler = asgi_handler(app, concurrency=4)
