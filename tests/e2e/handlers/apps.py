"""The same small site in every framework: the paths of `test_apps.py`, each as that framework's documentation has it.

Annotations are evaluated here, unlike elsewhere: frameworks read those of functions inside functions.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dialback import asgi_handler, wsgi_handler

NOTES = Path(os.environ.get("E2E_NOTES", "."))
FILE = Path(__file__)


def note(name: str, text: str) -> None:
    with (NOTES / name).open("a") as file:
        file.write(f"{text}\n")


async def ticks(name: str) -> AsyncIterator[str]:
    """Three lines, 0.3 s apart; or, by its name, for ever, or half a minute apart. Noted when it ends."""
    try:
        for number in range(3 if name == "three" else 1_000_000):
            yield f"{number} {time.time()!r}\n"
            await asyncio.sleep(30 if name.startswith("waits") else 0.3)
    finally:
        note(name, f"{time.time()!r}")


def sync_ticks(name: str) -> Iterator[str]:
    try:
        for number in range(3 if name == "three" else 1_000_000):
            yield f"{number} {time.time()!r}\n"
            time.sleep(0.3)
    finally:
        note(name, f"{time.time()!r}")


def fastapi_app() -> Any:
    from fastapi import BackgroundTasks, FastAPI, Request, UploadFile
    from fastapi.responses import FileResponse, StreamingResponse

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        note("started", str(os.getpid()))
        yield {"greeting": "hello"}

    app = FastAPI(lifespan=lifespan)

    @app.get("/hello/{name}")
    async def hello(name: str, request: Request, q: int = 0) -> dict[str, Any]:
        return {"hello": name, "q": q, "greeting": request.state.greeting, "url": str(request.url)}

    @app.get("/ticks/{name}")
    async def stream(name: str) -> StreamingResponse:
        return StreamingResponse(ticks(name), media_type="text/plain")

    @app.post("/upload")
    async def upload(file: UploadFile) -> dict[str, Any]:
        size = 0
        while piece := await file.read(1 << 20):
            size += len(piece)
        return {"name": file.filename, "size": size}

    @app.post("/count")
    async def count(request: Request) -> dict[str, int]:
        return {"size": sum([len(piece) async for piece in request.stream()])}

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> dict[str, str]:
        async def later() -> None:
            await asyncio.sleep(0.5)
            note("background", "done")

        tasks.add_task(later)
        return {"status": "accepted"}

    @app.get("/file")
    async def file() -> FileResponse:
        return FileResponse(FILE)

    @app.get("/blocking")
    def blocking() -> dict[str, bool]:
        time.sleep(0.1)  # FastAPI's own threads
        return {"ok": True}

    @app.get("/fails")
    async def fails() -> None:
        raise ValueError("this handler fails")

    return app


def starlette_app() -> Any:
    from starlette.applications import Starlette
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, StreamingResponse
    from starlette.routing import Route

    async def hello(request: Request) -> JSONResponse:
        q = int(request.query_params.get("q", 0))
        return JSONResponse({"hello": request.path_params["name"], "q": q, "url": str(request.url)})

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(ticks(request.path_params["name"]), media_type="text/plain")

    async def count(request: Request) -> JSONResponse:
        return JSONResponse({"size": sum([len(piece) async for piece in request.stream()])})

    async def file(request: Request) -> FileResponse:
        return FileResponse(FILE)

    async def fails(request: Request) -> None:
        raise ValueError("this handler fails")

    async def marks(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-marked"] = "yes"
        return response

    routes = [
        Route("/hello/{name}", hello),
        Route("/ticks/{name}", stream),
        Route("/count", count, methods=["POST"]),
        Route("/file", file),
        Route("/fails", fails),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(BaseHTTPMiddleware, dispatch=marks)
    return app


def litestar_app() -> Any:
    from litestar import Litestar, Request, get, post
    from litestar.response import File, Stream

    @get("/hello/{name:str}")
    async def hello(name: str, request: Request[Any, Any, Any], q: int = 0) -> dict[str, Any]:
        return {"hello": name, "q": q, "url": str(request.url)}

    @get("/ticks/{name:str}", media_type="text/plain")
    async def stream(name: str) -> Stream:
        return Stream(ticks(name))

    @post("/count", status_code=200)
    async def count(request: Request[Any, Any, Any]) -> dict[str, int]:
        return {"size": sum([len(piece) async for piece in request.stream()])}

    @get("/file")
    async def file() -> File:
        return File(FILE, filename=FILE.name)

    @get("/fails")
    async def fails() -> None:
        raise ValueError("this handler fails")

    return Litestar([hello, stream, count, file, fails])


def quart_app() -> Any:
    from quart import Quart, request, send_file

    app = Quart(__name__)

    @app.get("/hello/<name>")
    async def hello(name: str) -> dict[str, Any]:
        return {"hello": name, "q": int(request.args.get("q", 0)), "url": request.url}

    @app.get("/ticks/<name>")
    async def stream(name: str) -> Any:
        return ticks(name), {"content-type": "text/plain"}

    @app.post("/count")
    async def count() -> dict[str, int]:
        return {"size": sum([len(piece) async for piece in request.body])}

    @app.get("/file")
    async def file() -> Any:
        return await send_file(FILE)

    @app.get("/fails")
    async def fails() -> None:
        raise ValueError("this handler fails")

    return app


def django_paths(*, is_async: bool) -> None:
    import django
    from django.conf import settings
    from django.http import FileResponse, HttpRequest, JsonResponse, StreamingHttpResponse
    from django.urls import path

    def hello(request: HttpRequest, name: str) -> JsonResponse:
        q = int(request.GET.get("q", 0))
        return JsonResponse({"hello": name, "q": q, "url": request.build_absolute_uri()})

    async def stream(request: HttpRequest, name: str) -> StreamingHttpResponse:
        return StreamingHttpResponse(ticks(name), content_type="text/plain")

    def sync_stream(request: HttpRequest, name: str) -> StreamingHttpResponse:
        return StreamingHttpResponse(sync_ticks(name), content_type="text/plain")

    def count(request: HttpRequest) -> JsonResponse:
        return JsonResponse({"size": len(request.body)})

    def file(request: HttpRequest) -> FileResponse:
        return FileResponse(FILE.open("rb"))

    def fails(request: HttpRequest) -> None:
        raise ValueError("this handler fails")

    settings.configure(
        ROOT_URLCONF=(
            path("hello/<str:name>", hello),
            path("ticks/<str:name>", stream if is_async else sync_stream),
            path("count", count),
            path("file", file),
            path("fails", fails),
        ),
        ALLOWED_HOSTS=["*"],
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
    )
    django.setup()


def django_asgi_app() -> Any:
    django_paths(is_async=True)
    from django.core.asgi import get_asgi_application

    return get_asgi_application()


def django_wsgi_app() -> Any:
    django_paths(is_async=False)
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


def flask_app() -> Any:
    from flask import Flask, request, send_file

    app = Flask(__name__)

    @app.get("/hello/<name>")
    def hello(name: str) -> dict[str, Any]:
        return {"hello": name, "q": int(request.args.get("q", 0)), "url": request.url}

    @app.get("/ticks/<name>")
    def stream(name: str) -> Any:
        return sync_ticks(name), {"content-type": "text/plain"}

    @app.post("/count")
    def count() -> dict[str, int]:
        return {"size": sum(map(len, iter(lambda: request.stream.read(1 << 16), b"")))}

    @app.get("/file")
    def file() -> Any:
        return send_file(FILE)

    @app.get("/fails")
    def fails() -> None:
        raise ValueError("this handler fails")

    return app


def bottle_app() -> Any:
    from bottle import Bottle, request, response, static_file

    app = Bottle()

    @app.get("/hello/<name>")
    def hello(name: str) -> dict[str, Any]:
        return {"hello": name, "q": int(request.query.q or 0), "url": request.url}

    @app.get("/ticks/<name>")
    def stream(name: str) -> Iterator[str]:
        response.content_type = "text/plain"
        return sync_ticks(name)

    @app.post("/count")
    def count() -> dict[str, int]:
        return {"size": sum(map(len, iter(lambda: request.environ["wsgi.input"].read(1 << 16), b"")))}

    @app.get("/file")
    def file() -> Any:
        return static_file(FILE.name, root=str(FILE.parent))

    @app.get("/fails")
    def fails() -> None:
        raise ValueError("this handler fails")

    return app


class Made:
    """A handler that is made by its first call: an environment serves one framework, and loads no other."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._handler: Any = None

    def __call__(self, event: Any, context: Any) -> Any:
        self._handler = self._handler or self._make()
        return self._handler(event, context)


fastapi = Made(lambda: asgi_handler(fastapi_app()))
starlette = Made(lambda: asgi_handler(starlette_app()))
litestar = Made(lambda: asgi_handler(litestar_app()))
quart = Made(lambda: asgi_handler(quart_app()))
django_asgi = Made(lambda: asgi_handler(django_asgi_app()))
flask = Made(lambda: wsgi_handler(flask_app(), concurrency=4))
django_wsgi = Made(lambda: wsgi_handler(django_wsgi_app(), concurrency=4))
bottle = Made(lambda: wsgi_handler(bottle_app(), concurrency=4))


@asgi_handler
async def no_database(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database is not there"})
