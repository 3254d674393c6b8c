"""What docs/apps.md says: its recipes run as they stand there, and its tables are those of the tests."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import tomllib

from tests.e2e.command import REPOSITORY
from tests.e2e.stack import Stack

DOCUMENT = (REPOSITORY / "docs" / "apps.md").read_text()
SUITES = Path(__file__).parent / "suites"


@pytest.fixture
def recipe(shared_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Stack]:
    """`recipe("Socket.IO")`: a stack that serves the first Python of that section."""

    def serve(section: str) -> Stack:
        text = DOCUMENT.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        root = tmp_path_factory.mktemp("recipe")
        (root / "recipe.py").write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
        return shared_stack("recipe.py:handler", root=root, environments=1)

    return serve


def test_the_openai_compatible_server(recipe: Callable[[str], Stack]) -> None:
    pytest.importorskip("openai")
    pytest.importorskip("fastapi")
    from openai import OpenAI

    with OpenAI(base_url=f"{recipe('OpenAI-compatible servers').url}/v1", api_key="any") as client:
        asked = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}], stream=True)
        said = [chunk.choices[0] for chunk in asked]
    assert [choice.delta.content for choice in said] == ["You ", "said: ", "Hello ", None]
    assert said[-1].finish_reason == "stop"


async def test_the_socketio_server(recipe: Callable[[str], Stack]) -> None:
    pytest.importorskip("socketio")
    import socketio

    stack = recipe("Socket.IO")
    client = socketio.AsyncClient(reconnection=False)
    await client.connect(f"http://localhost:{stack.port}", wait_timeout=30)
    assert await client.call("echo", "Hello") == "Hello"
    await client.disconnect()


def test_the_reasons_of_tests_that_do_not_apply() -> None:
    counts: dict[str, Counter[str]] = {}
    for name in ("starlette", "fastapi"):
        suite = tomllib.loads((SUITES / f"{name}.toml").read_text())
        for group in suite["inapplicable"]:
            counts.setdefault(group["reason"], Counter())[name] += len(group["tests"])
        assert f" {suite['version']} | " in DOCUMENT
    for reason, count in counts.items():
        assert f"| {reason} | {count['starlette']} | {count['fastapi']} |\n" in DOCUMENT
    totals = [sum(count[name] for count in counts.values()) for name in ("starlette", "fastapi")]
    assert [
        int(row) for row in re.findall(r"^\| (?:Starlette|FastAPI) [\d.]+ \| \d+ \| (\d+) \|", DOCUMENT, re.M)
    ] == totals
