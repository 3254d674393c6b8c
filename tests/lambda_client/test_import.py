"""What `import lambda_client` costs a cold start, and what it says when it finds somebody else's `protocol`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lambda_client

ROOT = Path(__file__).resolve().parents[2]
OURS = "import lambda_client"
ROUNDS = 9


def run(code: str, *, path: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "", **variables}
    environment.pop("DIALBACK_GATEWAY", None) if "DIALBACK_GATEWAY" not in variables else None
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def processor_seconds(statement: str) -> float:
    code = f"import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
    done = run(code)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.parametrize(
    ("ours", "yardstick", "limit"),
    [
        ("import lambda_client", "import websockets.client, msgpack", 0.7),
        # All that the first dial needs, against what one would import to dial by hand.
        (
            "import lambda_client.dial, lambda_client.environment, lambda_client",
            "import websockets.asyncio.client, msgpack",
            1.3,
        ),
    ],
)
def test_the_import_costs_little_beside_what_it_stands_on(ours: str, yardstick: str, limit: float) -> None:
    processor_seconds(ours), processor_seconds(yardstick)  # which compiles both
    pairs = [(processor_seconds(ours), processor_seconds(yardstick)) for _ in range(ROUNDS)]
    least, against = (min(each) for each in zip(*pairs, strict=True))  # what others disturb only ever takes longer
    assert least <= limit * against, f"{least * 1000:.1f} ms, and the yardstick {against * 1000:.1f} ms"


def loaded(code: str, **variables: str) -> set[str]:
    done = run(f"import sys; {code}; print(*sys.modules)", **variables)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_import_leaves_to_the_first_use_what_is_heavy() -> None:
    assert not loaded(OURS) & {"asyncio", "msgpack", "protocol", "ssl", "websockets", "lambda_client.environment"}
    in_use = loaded("import lambda_client.dial, lambda_client.environment")
    late = {"concurrent.futures.thread", "websockets.asyncio", "lambda_client.testing", "protocol.gateway_session"}
    assert not in_use & late


DECORATE = "import lambda_client; lambda_client.stream_handler(lambda request: '')"


def test_a_function_that_will_dial_loads_in_its_init_what_dialling_takes() -> None:
    assert "websockets.client" in loaded(DECORATE, DIALBACK_GATEWAY="wss://gw.example.com")
    assert not loaded(DECORATE) & {"websockets", "protocol"}


@pytest.mark.parametrize("name", ["protocol.py", "protocol/__init__.py"])
def test_somebody_elses_protocol_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("greeting = 'hello'\n")
    done = run(f"import sys; sys.path.append({str(ROOT)!r}); import lambda_client.wire", path=tmp_path)
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: `import protocol` finds ")
    assert str(tmp_path / name.removesuffix("/__init__.py")) in message
    assert "Rename" in message and "my_protocol" in message


def test_a_protocol_that_is_missing_is_said_to_be(tmp_path: Path) -> None:
    shutil.copytree(Path(lambda_client.__file__).parent, tmp_path / "lambda_client")
    # Only the folder and the standard library: an installed Dialback would be found otherwise, or one that is edited.
    keep = f"p == {str(tmp_path)!r} or p.startswith(sys.base_prefix) and 'site-packages' not in p"
    code = f"import sys; sys.path[:] = [p for p in sys.path if {keep}]; import lambda_client.wire"
    done = run(code, path=tmp_path)
    assert done.returncode == 1
    assert "`protocol` is missing" in done.stderr.splitlines()[-1]
