"""Five chunks, one a second: curl -N http://127.0.0.1:8080/"""

import asyncio
from collections.abc import AsyncIterator

from dialback import Request, Response, stream_handler


@stream_handler
async def handler(request: Request) -> Response:
    async def body() -> AsyncIterator[str]:
        for number in range(1, 6):
            yield f"Chunk {number}\n"
            if number < 5:
                await asyncio.sleep(1)

    return Response(body(), headers={"content-type": "text/plain; charset=utf-8"})
