"""Code that blocks the event loop is named; what is not blocked, short, asleep or frozen is not."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from lambda_client import Request, asgi_handler, stream_handler
from lambda_client.testing import TestClient
from lambda_client.watchdog import Watchdog
from tests.lambda_client.loopback_gateway import SECRET, LoopbackGateway

LIMIT = 0.3
"""Seconds."""
ROOT = Path(__file__).resolve().parents[2]


def sleeps(seconds: float = 3 * LIMIT) -> None:
    time.sleep(seconds)  # the line that is named


async def sleeps_too() -> None:
    sleeps()


HERE = f"{__file__}:{sleeps.__code__.co_firstlineno + 1} in sleeps"


@stream_handler(concurrency=4)
async def handler(request: Request) -> str:
    if request.path == "/blocks":
        sleeps()
    elif request.path == "/blocks-in-a-task":
        await asyncio.create_task(sleeps_too())
    elif request.path == "/blocks-twice":
        sleeps()
        await asyncio.sleep(LIMIT)
        sleeps()
    elif request.path == "/blocks-in-c":
        asyncio.get_running_loop().call_soon(time.sleep, 3 * LIMIT)
        await asyncio.sleep(2 * LIMIT)
    elif request.path == "/naps":
        for _ in range(40):
            sleeps(LIMIT / 20)
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(2 * LIMIT)
    return request.id


@asgi_handler
async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        sleeps()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("DIALBACK_BLOCKED_LOOP", str(LIMIT))
    caplog.set_level(logging.INFO, "dialback")


def named(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "is blocked" in record.getMessage()]


def test_who_blocks_is_named_with_his_line_and_those_who_wait(caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(handler) as client:
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(lambda: client.request("GET", "/waits").text)
            time.sleep(LIMIT / 4)
            blocker = client.request("GET", "/blocks").text
        time.sleep(LIMIT)
    (said,) = named(caplog)
    assert said.startswith(f"request {blocker}: the event loop is blocked, for {LIMIT} s so far, at {HERE}. Await")
    waits, *stack = said.splitlines()[1:]
    assert set(re.findall("[0-9a-f]{32}", waits)) == {blocker, waiting.result()}
    assert "in handler" in stack[0] and "the line that is named" in stack[-1] and len(stack) == 4
    assert any(re.match(r"the event loop goes on, after \d\.\d s", each.getMessage()) for each in caplog.records)


@pytest.mark.parametrize("path", ["/blocks-in-a-task", "/blocks-twice"])
def test_each_block_is_named_once(caplog: pytest.LogCaptureFixture, path: str) -> None:
    with TestClient(handler) as client:
        client.request("GET", path)
    assert len(named(caplog)) == (2 if path == "/blocks-twice" else 1)
    assert all(HERE in said for said in named(caplog))


def test_an_app_is_named_with_its_request(caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(app) as client:
        client.request("GET", "/")
    (said,) = named(caplog)
    assert re.match(f"request [0-9a-f]{{32}}: the event loop is blocked, .* at {re.escape(HERE)}", said)


def test_a_block_without_a_line_of_the_users_is_named_too(caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(handler) as client:
        client.request("GET", "/blocks-in-c")
        client.request("GET", "/blocks")
    without, within = named(caplog)
    assert "events.py" in without and HERE in within


@pytest.mark.parametrize("path", ["/waits", "/naps"])
def test_who_waits_or_takes_short_turns_is_not(caplog: pytest.LogCaptureFixture, path: str) -> None:
    with TestClient(handler) as client:
        client.request("GET", path)
    assert named(caplog) == []


@pytest.mark.parametrize("never", ["0", "inf"])
def test_it_can_be_turned_off(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, never: str) -> None:
    monkeypatch.setenv("DIALBACK_BLOCKED_LOOP", never)
    before = watchdogs()
    with TestClient(handler) as client:
        client.request("GET", "/blocks")
        assert watchdogs() <= before
    assert named(caplog) == []


def watchdogs() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name == "dialback-watchdog"}


def test_a_limit_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="DIALBACK_BLOCKED_LOOP is a number of seconds, not 'soon'"):
        Watchdog(Mock(), "soon")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_its_thread_never_wakes_while_no_stream_runs() -> None:
    before = watchdogs()
    with TestClient(handler) as client:
        client.request("GET", "/waits")
        (watchdog,) = watchdogs() - before
        time.sleep(LIMIT)
        status = Path(f"/proc/self/task/{watchdog.native_id}/status")
        before = status.read_text().partition("voluntary_ctxt_switches:")[2]
        time.sleep(3 * LIMIT)
        assert status.read_text().partition("voluntary_ctxt_switches:")[2] == before
    watchdog.join(5)
    assert not watchdog.is_alive(), "it ends with the environment"


def test_a_stopped_one_ends_at_once_whatever_still_runs_and_however_long_its_steps_are() -> None:
    """No turn of the loop will come any more, and a step of this limit is a minute."""
    loop, before = asyncio.new_event_loop(), watchdogs()
    watchdog = Watchdog(loop, "240")
    watchdog.begin(Mock(is_abandoned=False))
    (thread,) = watchdogs() - before
    time.sleep(0.1)
    watchdog.stop()
    thread.join(5)
    loop.close()
    assert not thread.is_alive()


CHILD = """
import asyncio, json, logging, sys, time
logging.basicConfig(level=logging.INFO)
from lambda_client import stream_handler
from lambda_client.testing import TestContext

@stream_handler
async def handler(request):
    print("begun", file=sys.stderr, flush=True)
    if request.path == "/computes":
        sum(range(6 * 10**7))  # in C, which keeps the interpreter to itself
    await asyncio.sleep(2)
    return "done"

for line in sys.stdin:
    print(json.dumps(handler(json.loads(line), TestContext(60))), flush=True)
"""


@pytest.mark.parametrize(("path", "is_named"), [("/freezes", False), ("/computes", True)])
def test_a_freeze_is_no_block_and_code_that_lets_no_thread_look_is_one(
    gateway: LoopbackGateway, path: str, is_named: bool
) -> None:
    variables = {"DIALBACK_SECRET": SECRET, "DIALBACK_GATEWAY": gateway.address, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**variables, "DIALBACK_BLOCKED_LOOP": str(LIMIT)},
        text=True,
    )
    try:
        assert child.stdin is not None and child.stderr is not None
        gateway.ask("GET", path)
        child.stdin.write(json.dumps(gateway.invite()) + "\n")
        child.stdin.close()
        child.stdin = None
        while (line := child.stderr.readline()) != "begun\n":
            assert line, "it has ended"
        if path == "/freezes":
            time.sleep(LIMIT / 2)
            child.send_signal(signal.SIGSTOP)
            time.sleep(4 * LIMIT)
            child.send_signal(signal.SIGCONT)
        out, log = child.communicate(timeout=30)
    finally:
        child.kill()
        child.communicate()
    assert '"parked"' in out
    assert ("the event loop is blocked" in log) is is_named
