"""A chat whose Stop button stops the function: open http://127.0.0.1:8080/ in a browser, ask, and press Stop."""

import asyncio
from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from dialback import Request, Response, sse, stream_handler

PAGE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
SAYS = " ".join(f"Sentence {number} of 12 leaves the function word by word." for number in range(1, 13))
# What became of each chat's latest answer; a route's `affinity = "header:chat-id"` brings the page that asks back here.
answer_of = lru_cache(1000)(lambda chat: {"state": "unknown", "tokens": 0})


async def model(messages: list[dict[str, str]]) -> AsyncIterator[str]:
    """Stands in for a language model: iterate over your client's stream in its place."""
    for word in f"Question {len(messages) // 2 + 1}: “{messages[-1]['content']}” {SAYS}".split():
        await asyncio.sleep(0.04)
        yield word + " "


@stream_handler(concurrency=20)  # it waits nearly all the time: one environment serves many chats
async def handler(request: Request) -> Response | dict[str, Any]:
    answer: dict[str, Any] = answer_of(request.headers.get("chat-id", ""))
    if request.method == "GET":
        return answer if request.path == "/chat" else Response(PAGE, headers={"content-type": "text/html"})

    async def tokens(messages: list[dict[str, str]]) -> AsyncIterator[str]:
        answer.update(state="answering", tokens=0)
        try:
            async for token in model(messages):
                answer["tokens"] += 1
                yield token
        finally:  # reached at once, too, when the client leaves
            answer["state"] = "stopped" if request.cancelled else "ended"
            print(request.id, answer)

    return sse(tokens((await request.json())["messages"]))
