"""Counts and hashes an upload of any size while it comes: curl -T big.file http://127.0.0.1:8080/"""

import hashlib
import time

from dialback import Request, stream_handler


@stream_handler
async def handler(request: Request) -> dict[str, object]:
    digest = hashlib.sha256()
    size = 0
    began = time.monotonic()
    async for chunk in request.body:  # never more than a window of it is in memory
        digest.update(chunk)
        size += len(chunk)
    return {"bytes": size, "sha256": digest.hexdigest(), "seconds": round(time.monotonic() - began, 3)}
