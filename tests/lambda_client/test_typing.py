"""What type checkers make of handlers: the good ones pass under `mypy --strict`, each bad one is an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

ROOT = Path(__file__).resolve().parents[2]

GOOD = """
from __future__ import annotations
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from lambda_client import (HttpResponseStream, Request, Response, SyncRequest, asgi_handler, current_request,
    pipeline, sse, stream_handler, streamify_response, wsgi_handler)
from lambda_client.testing import TestClient

@stream_handler
async def response(request: Request) -> Response:
    async def body() -> AsyncIterator[str]:
        yield "x"
    return Response(body(), status=200, headers={"content-type": "text/plain"}, trailers=[("a", "b")])

@stream_handler
async def pieces(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.body:
        yield piece

@stream_handler
async def generator(request: Request) -> AsyncGenerator[str, None]:
    yield await request.text()

@stream_handler
def sync_pieces(request: SyncRequest) -> Iterator[str]:
    for piece in request.body:
        yield str(len(piece))

@stream_handler
def document(request: SyncRequest) -> dict[str, Any]:
    first: str | None = request.query.get("a")
    second: str = request.query.get("b", "x")
    return {"a": first, "b": second, "json": request.json(), "file": request.file.read(1)}

@stream_handler
def file(request: SyncRequest) -> Any:
    return open("x", "rb")

@stream_handler
def event(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return {"statusCode": 200}

@stream_handler
async def async_event(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return {"statusCode": 200}

@asynccontextmanager
async def lifespan() -> AsyncIterator[int]:
    yield 1

@stream_handler(concurrency=20, lifespan=lifespan)
async def text(request: Request) -> str:
    return current_request().id + await request.text()

@stream_handler(concurrency=20)
def octets(request: SyncRequest) -> bytes:
    return request.read()

@stream_handler
async def nothing(request: Request) -> None:
    return None

@stream_handler
async def several(request: Request) -> Response | str | dict[str, str] | None:
    return "x"

@streamify_response
async def native(event: Any, response_stream: Any, context: Any) -> None:
    await pipeline([b"x"], HttpResponseStream.from_(response_stream, {"statusCode": 200}))

@streamify_response(concurrency=2)
def native_in_thread(event: dict[str, Any], response_stream: Any, context: Any) -> None:
    response_stream.write(b"x")

@stream_handler
async def events(request: Request) -> Response:
    async def each() -> AsyncIterator[str | dict[str, Any]]:
        yield {"data": 1}
    return sse(each(), keep_alive=None)

async def asgi_app(scope: Any, receive: Any, send: Any) -> None: ...
def wsgi_app(environ: dict[str, Any], start_response: Any) -> list[bytes]: return []

apps = [asgi_handler(asgi_app, lifespan="off"), wsgi_handler(wsgi_app, concurrency=2), native]

async def use() -> None:
    for handler in apps:
        TestClient(handler).close()
    print(native.fn.__name__)
    with TestClient(response) as client, client.stream("GET", "/", headers={"a": "b"}) as answer:
        print(answer.status, answer.headers["a"], list(answer), answer.trailers.get("x"))
    print(document.fn.__name__, text(event={}, context=None))  # type: ignore[arg-type]
"""

BAD = {
    "async with SyncRequest": "async def handler(request: SyncRequest) -> str: return ''",
    "def with Request": "def handler(request: Request) -> str: return ''",
    "an int": "def handler(request: SyncRequest) -> int: return 1",
    "no parameter": "def handler() -> str: return ''",
    "three parameters": "def handler(a: Any, b: Any, c: Any) -> str: return ''",
    "awaiting a SyncRequest": "def handler(request: SyncRequest) -> str: return request.text().upper().nonsense",
    "forgetting to await": "async def handler(request: Request) -> str: return request.text()",
}
HEAD = "from typing import Any\nfrom lambda_client import Request, SyncRequest, stream_handler\n@stream_handler\n"


def check(tmp_path: Path, sources: dict[str, str]) -> subprocess.CompletedProcess[str]:
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    files = [str(tmp_path / f"{name}.py") for name in sources]
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-error-summary"]
    cache = ["--cache-dir", str(tmp_path / "cache")]
    return subprocess.run([*command, *cache, *files], cwd=ROOT, capture_output=True, text=True, check=False)


def test_mypy_takes_the_good_handlers_and_refuses_the_bad_ones(tmp_path: Path) -> None:
    done = check(tmp_path, {"good": GOOD, **{f"bad{i}": HEAD + source + "\n" for i, source in enumerate(BAD.values())}})
    wrong = {line.partition(":")[0] for line in done.stdout.splitlines() if ": error:" in line}
    assert wrong == {str(tmp_path / f"bad{i}.py") for i in range(len(BAD))}, done.stdout + done.stderr
