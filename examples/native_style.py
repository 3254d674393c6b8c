"""Lambda's own streaming shape, which AWS has for Node.js alone, in Python: curl -N http://127.0.0.1:8080/

`curl --compressed -N http://127.0.0.1:8080/gzip` gets the same compressed on the way.
"""

import asyncio
import zlib
from typing import Any

from dialback import HttpResponseStream, pipeline, streamify_response


async def lines() -> Any:
    for number in range(1, 6):
        yield f"line {number}\n"
        await asyncio.sleep(0.2)


@streamify_response
async def handler(event: Any, response_stream: Any, context: Any) -> None:
    metadata: dict[str, Any] = {"statusCode": 200, "headers": {"content-type": "text/plain"}, "cookies": ["seen=1"]}
    if event["rawPath"] == "/gzip":
        metadata["headers"]["content-encoding"] = "gzip"
        response_stream = HttpResponseStream.from_(response_stream, metadata)
        await pipeline(lines(), zlib.compressobj(wbits=31), response_stream)
        return
    response_stream = HttpResponseStream.from_(response_stream, metadata)
    async for line in lines():
        response_stream.write(line)
    response_stream.end()
    await response_stream.finished()
