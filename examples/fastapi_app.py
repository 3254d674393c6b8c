"""A FastAPI app, as it is, in a Lambda function (pip install fastapi): curl -N http://127.0.0.1:8080/count/5"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import StreamingResponse

from dialback import asgi_handler


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, list[str]]]:
    yield {"seen": []}  # once for each environment: a pool of connections, a model


app = FastAPI(lifespan=lifespan)


@app.get("/count/{limit}")
async def count(limit: int, request: Request, tasks: BackgroundTasks) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(1, limit + 1):
            yield f"{number}\n"  # leaves now; a client that goes away cancels this
            await asyncio.sleep(0.2)

    tasks.add_task(request.state.seen.append, f"counted to {limit}")  # after the response, before the freeze
    return StreamingResponse(lines(), media_type="text/plain")


@app.post("/size")
async def size(request: Request) -> dict[str, object]:
    total = 0
    async for piece in request.stream():  # any size: never all of it is in memory
        total += len(piece)
    return {"bytes": total, "seen": request.state.seen}


handler = asgi_handler(app)
