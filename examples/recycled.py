"""An environment that grows is replaced before Lambda kills it: for i in $(seq 30); do curl 127.0.0.1:8080/$i; done"""

import os
import resource

from dialback import Request, stream_handler

LIMIT = 300 << 10  # KiB; keep away from what the function may have, by what its requests need at once
CACHE: dict[str, bytes] = {}  # nobody ever empties it


def healthy() -> bool:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < LIMIT


@stream_handler(concurrency=20, healthy=healthy)
async def handler(request: Request) -> str:
    if request.path not in CACHE:
        CACHE[request.path] = os.urandom(20 << 20)
    return f"process {os.getpid()} remembers {len(CACHE)}\n"
