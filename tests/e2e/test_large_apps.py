"""Large bodies of a FastAPI app: 5 GiB each way, a form above a gibibyte, ranges of a file as the app answers them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

import httpx

from tests.e2e.patience import wait_for
from tests.e2e.stack import Stack
from tests.e2e.test_large import MIB, Large

GIB = 1024 * MIB
SIZES = [
    pytest.param(48 * MIB, id="48MiB"),
    pytest.param(5 * GIB, id="5GiB", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
]
FORMS = [
    pytest.param(24 * MIB, id="24MiB"),
    pytest.param(GIB + 100 * MIB, id="1.1GiB", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
]


@pytest.fixture(scope="module")
def content() -> bytes:
    return random.Random(7).randbytes(3 * MIB + 12345)


@pytest.fixture(scope="module")
def site(shared_stack: Callable[..., Stack], content: bytes) -> Stack:
    stack = shared_stack("large.py:handler", environments=1)
    (stack.notes / "content").write_bytes(content)
    stack.get("/produce?size=1")
    return stack


@pytest.fixture
def measured(site: Stack) -> Large:
    """With new high-water marks."""
    site.get("/produce?size=1")
    return Large(site)


@pytest.mark.parametrize("size", SIZES)
def test_a_streaming_response_of_any_size_is_equal_and_never_held(measured: Large, size: int) -> None:
    sha = hashlib.sha256()
    seen = 0
    url = f"{measured.stack.url}/produce?size={size}"
    with subprocess.Popen(["curl", "-sSN", "--fail", url], stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        while data := curl.stdout.read(MIB):
            sha.update(data)
            seen += len(data)
    assert (curl.returncode, seen) == (0, size)
    wait_for(lambda: (measured.stack.notes / "produced").read_text() == sha.hexdigest())
    measured.assert_flat("FastAPI download", size)


@pytest.mark.parametrize("size", SIZES)
def test_an_upload_of_any_size_is_equal_and_never_held(measured: Large, size: int) -> None:
    sha = hashlib.sha256()
    block = random.Random(size).randbytes(MIB) * 2
    command = ["curl", "-sSN", "--fail", "-T", "-", f"{measured.stack.url}/digest"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as curl:
        assert curl.stdin is not None and curl.stdout is not None
        for index in range(size // MIB):
            data = block[index % MIB :][:MIB]
            sha.update(data)
            curl.stdin.write(data)
        curl.stdin.close()
        seen = json.loads(curl.stdout.read())
    assert curl.returncode == 0
    assert seen == {"size": size, "sha256": sha.hexdigest()}
    measured.assert_flat("FastAPI upload", size)


@pytest.fixture
def upload() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "large.bin"


@pytest.mark.parametrize("size", FORMS)
def test_a_form_with_a_large_file_goes_through_tmp(measured: Large, upload: Path, size: int) -> None:
    """Starlette spools it to /tmp, 1 MiB of it in memory."""
    with upload.open("wb") as file:  # sparse, but for what shows that nothing has moved
        for position in range(0, size, 10 * MIB):
            file.seek(position)
            file.write(b"%d" % position)
        file.truncate(size)
    sha = hashlib.sha256()
    with upload.open("rb") as file:
        while data := file.read(MIB):
            sha.update(data)
    command = ["curl", "-sS", "--fail", "-F", "title=x", "-F", f"file=@{upload}", f"{measured.stack.url}/form"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=400)
    assert json.loads(done.stdout) == {"size": size, "sha256": sha.hexdigest(), "name": "large.bin"}
    measured.assert_flat("FastAPI form", size)


# Ranges


def curl(site: Stack, *options: str) -> tuple[int, dict[str, str], bytes]:
    done = subprocess.run(
        ["curl", "-sS", "-i", *options, f"{site.url}/file"], capture_output=True, check=True, timeout=30
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    return (
        int(status.split()[1]),
        {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)},
        body,
    )


def ask(site: Stack, *options: str) -> tuple[int, dict[str, str], bytes]:
    """The same through httpx: `options` are curl's."""
    method, headers = "GET", {}
    for option, value in zip(options[::2], options[1::2], strict=True):
        if option == "-r":
            headers["range"] = f"bytes={value}"
        elif option == "-H":
            name, _, text = value.partition(": ")
            headers[name] = text
        else:
            method = value
    response = httpx.request(method, f"{site.url}/file", headers=headers)
    return response.status_code, dict(response.headers), response.content


Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture(params=[curl, ask], ids=["curl", "httpx"])
def client(request: pytest.FixtureRequest) -> Ask:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("wanted", "first", "last"), [("0-99", 0, 99), ("1000000-", 1_000_000, None), ("-500", -500, None), ("0-0", 0, 0)]
)
def test_a_range_is_the_apps_206(
    site: Stack, client: Ask, content: bytes, wanted: str, first: int, last: int | None
) -> None:
    status, headers, body = client(site, "-r", wanted)
    expected = content[first:] if last is None else content[first : last + 1]
    start = first % len(content)
    assert (status, body) == (206, expected)
    assert headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/{len(content)}"
    assert int(headers["content-length"]) == len(expected)


def test_several_ranges_are_one_multipart_body(site: Stack, client: Ask, content: bytes) -> None:
    status, headers, body = client(site, "-r", "0-9,1000-1009,-5")
    boundary = re.fullmatch(r"multipart/byteranges; boundary=(\S+)", headers["content-type"])
    assert status == 206 and boundary is not None and int(headers["content-length"]) == len(body)
    parts = body.split(b"--" + boundary[1].encode())[1:-1]
    sent = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts]
    assert sent == [content[:10], content[1000:1010], content[-5:]]


def test_if_range_decides_between_the_part_and_the_whole(site: Stack, client: Ask, content: bytes) -> None:
    tag = client(site)[1]["etag"]
    assert client(site, "-r", "5-9", "-H", f"If-Range: {tag}")[::2] == (206, content[5:10])
    assert client(site, "-r", "5-9", "-H", 'If-Range: "another"')[::2] == (200, content)


def test_a_range_beyond_the_end_is_416(site: Stack, client: Ask, content: bytes) -> None:
    status, headers, _ = client(site, "-r", "99999999-")
    assert (status, headers["content-range"]) == (416, f"bytes */{len(content)}")


def test_head_has_the_length_and_no_body(site: Stack, content: bytes) -> None:
    done = subprocess.run(["curl", "-sSI", f"{site.url}/file"], capture_output=True, check=True, timeout=30)
    assert b" 200 " in done.stdout and f"content-length: {len(content)}".encode() in done.stdout.lower()
    status, headers, body = ask(site, "-X", "HEAD")
    assert (status, int(headers["content-length"]), body) == (200, len(content), b"")


def test_the_whole_goes_by_its_path(site: Stack, client: Ask, content: bytes) -> None:
    """`http.response.pathsend`, which Starlette uses where it is offered."""
    status, headers, body = client(site)
    assert (status, body, headers["accept-ranges"]) == (200, content, "bytes")


def test_curl_resumes_a_download_that_was_cut(site: Stack, content: bytes, tmp_path: Path) -> None:
    target = tmp_path / "part"
    command = ["curl", "-sS", "--fail", "-o", str(target), f"{site.url}/file"]
    with subprocess.Popen([*command, "--limit-rate", "1M"]) as first:
        wait_for(lambda: target.exists() and target.stat().st_size > 100_000)
        first.kill()
    had = target.stat().st_size
    assert 0 < had < len(content)
    subprocess.run([*command, "-C", "-"], check=True, timeout=30)
    assert target.read_bytes() == content


def test_httpx_resumes_a_download_that_was_cut(site: Stack, content: bytes) -> None:
    with httpx.stream("GET", f"{site.url}/file") as response:
        had = next(response.iter_bytes(300_000))
        tag = response.headers["etag"]
    rest = httpx.get(f"{site.url}/file", headers={"range": f"bytes={len(had)}-", "if-range": tag})
    assert (rest.status_code, had + rest.content) == (206, content)
    os.utime(site.notes / "content", (1, 1))  # another file, by its tag
    changed = httpx.get(f"{site.url}/file", headers={"range": f"bytes={len(had)}-", "if-range": tag})
    assert (changed.status_code, changed.content) == (200, content)
