"""Full duplex: answers each piece of the request before the next has been sent.

(for i in 1 2 3; do echo $i; sleep 1; done) | curl -N -T - http://127.0.0.1:8080/
"""

from collections.abc import AsyncIterator

from dialback import Request, Response, stream_handler


@stream_handler
async def handler(request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        async for piece in request.body:
            yield piece

    content_type = request.headers.get("content-type") or "application/octet-stream"
    return Response(body(), headers={"content-type": content_type})
