"""The first handler that `dialback init` writes."""

STARTER = '''"""A first function. Serve it with:  dialback dev {file}:handler"""

import asyncio

from dialback import Request, Response, stream_handler


@stream_handler
async def handler(request: Request) -> Response:
    name = request.query.get("name", "world")

    async def body():
        for word in ("Hello, ", name, "!\\n"):
            yield word  # it leaves at once; nothing waits for the rest
            await asyncio.sleep(0.5)

    return Response(body(), headers={{"content-type": "text/plain; charset=utf-8"}})
'''
