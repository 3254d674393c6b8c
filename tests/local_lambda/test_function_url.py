"""The Function URL in front of real environments: what goes in, what comes out, and what is refused."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

from tests.local_lambda.conftest import Run
from tests.local_lambda.running import eventually

ECHO = """
def handler(event, context):
    return event
"""
# Says that it has begun by making the file that the path names, and ends when that file is gone.
WAIT = """
import os, time
def handler(event, context):
    mark = event["queryStringParameters"]["mark"]
    open(mark, "w").close()
    while os.path.exists(mark):
        time.sleep(0.005)
    open(mark + ".done", "w").close()
    return "done"
"""
REQUEST_LIMIT = 6_291_456
RESPONSE_LIMIT = 6_291_556


async def test_event_and_context_reach_the_handler(run: Run) -> None:
    function = await run(
        """
def handler(event, context):
    return {
        "event": event, "id": context.aws_request_id, "arn": context.invoked_function_arn,
        "name": context.function_name, "memory": context.memory_limit_in_mb,
        "remaining": context.get_remaining_time_in_millis(),
    }
""",
        name="greeter",
        memory=512,
        timeout=7.0,
    )
    url = function.url + "a%20b?x=1&x=2"
    async with function.client.post(url, data="hi", headers={"Cookie": "k=v", "User-Agent": "t/1"}) as response:
        answer = json.loads(await response.text())
        request_id = response.headers["x-amzn-requestid"]
        trace_id = response.headers["x-amzn-trace-id"]
    event = answer["event"]
    assert answer["id"] == event["requestContext"]["requestId"] == request_id
    assert event["headers"]["x-amzn-trace-id"] == trace_id
    assert answer["arn"] == "arn:aws:lambda:us-east-1:123456789012:function:greeter"
    assert (answer["name"], answer["memory"]) == ("greeter", "512")
    assert 6000 < answer["remaining"] <= 7000
    assert (event["rawPath"], event["rawQueryString"]) == ("/a%20b", "x=1&x=2")
    assert event["queryStringParameters"] == {"x": "1,2"}
    assert event["cookies"] == ["k=v"]
    assert event["body"] == "hi"
    http = event["requestContext"]["http"]
    assert http == {
        "method": "POST",
        "path": "/a%20b",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "t/1",
    }


async def test_any_method(run: Run) -> None:
    function = await run("def handler(event, context): return event['requestContext']['http']['method']")
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
        assert await function.request(method) == (200, method)


async def test_head_has_the_headers_and_no_body(run: Run) -> None:
    function = await run('def handler(event, context): return {"statusCode": 200, "body": "12345"}')
    async with function.client.head(function.url) as response:
        assert (response.status, response.headers["content-length"], await response.read()) == (200, "5", b"")


async def test_no_content(run: Run) -> None:
    function = await run('def handler(event, context): return {"statusCode": 204}')
    assert await function.get() == (204, "")


async def test_function_error_is_a_502_without_its_cause(run: Run) -> None:
    function = await run("def handler(event, context): raise RuntimeError('a secret')")
    assert await function.get() == (502, "Internal Server Error")
    assert any("RuntimeError: a secret\nTraceback" in text for text in function.lines("function"))
    assert function.only.state == "idle"  # an exception is not the end of the environment


async def test_answer_that_makes_no_response_is_a_502_with_a_line_in_the_log(run: Run) -> None:
    function = await run('def handler(event, context): return {"statusCode": "ok"}')
    assert await function.get() == (502, "Internal Server Error")
    assert any("makes no HTTP response" in text for text in function.lines("platform"))


async def test_request_limit(run: Run) -> None:
    function = await run("def handler(event, context): return len(event['body'])")
    text = {"Content-Type": "text/plain"}
    envelope = 4096  # bytes: more than the rest of the event needs
    size = REQUEST_LIMIT - envelope
    assert await function.request("POST", data=io.BytesIO(b"x" * size), headers=text) == (200, str(size))
    status, body = await function.request("POST", data=io.BytesIO(b"x" * REQUEST_LIMIT), headers=text)
    assert (status, json.loads(body)["message"].split()[:4]) == (413, ["Request", "must", "be", "smaller"])
    binary = REQUEST_LIMIT * 3 // 4  # is the limit in base64
    assert (await function.request("POST", data=io.BytesIO(b"x" * binary)))[0] == 413


async def test_client_that_waits_to_be_told_to_send(run: Run) -> None:
    function = await run("def handler(event, context): return len(event['body'])")
    headers = {"Content-Type": "text/plain", "Expect": "100-continue"}
    assert await function.request("POST", data="hello", headers=headers) == (200, "5")


async def test_body_of_unknown_length(run: Run) -> None:
    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield bytes(1 << 16)

    function = await run("import base64\ndef handler(event, context): return len(base64.b64decode(event['body']))")
    assert await function.request("POST", data=pieces(10)) == (200, str(10 << 16))
    assert (await function.request("POST", data=pieces(97)))[0] == 413  # 96 are 6 MiB


async def test_response_limit(run: Run) -> None:
    # The payload is a JSON string: its two quotes count, and are not sent on.
    function = await run("def handler(event, context): return 'x' * int(event['rawQueryString'])")
    status, body = await function.get(f"?{RESPONSE_LIMIT - 2}")
    assert (status, len(body)) == (200, RESPONSE_LIMIT - 2)
    assert await function.get(f"?{RESPONSE_LIMIT - 1}") == (502, "Internal Server Error")


async def test_too_many_requests(run: Run, tmp_path: Path) -> None:
    function = await run(WAIT, environments=2)
    marks = [tmp_path / name for name in ("one", "two")]
    waiting = [asyncio.create_task(function.get(f"?mark={mark}")) for mark in marks]
    await eventually(lambda: all(mark.exists() for mark in marks))
    status, body = await function.get(f"?mark={tmp_path / 'three'}")
    assert (status, json.loads(body)["message"]) == (429, "Rate Exceeded.")
    for mark in marks:
        mark.unlink()
    assert await asyncio.gather(*waiting) == [(200, "done")] * 2
    assert len(function.service.environments) == 2


async def test_client_that_leaves_does_not_end_the_invocation(run: Run, tmp_path: Path) -> None:
    function = await run(WAIT)
    mark = tmp_path / "mark"
    waiting = asyncio.create_task(function.get(f"?mark={mark}"))
    await eventually(mark.exists)
    waiting.cancel()
    await asyncio.wait({waiting})
    mark.unlink()
    await eventually((tmp_path / "mark.done").exists)
    await eventually(lambda: function.only.state == "idle")
    assert "Status" not in function.report


async def test_one_client_after_the_other_uses_one_environment(run: Run) -> None:
    function = await run(ECHO, environments=1)
    for _ in range(50):
        assert (await function.get())[0] == 200
    assert function.only.invocations == 50
