"""What is measured: each a server that clients reach at `port`, and the process whose CPU and memory are counted.

The measured process has one core, everything else the other.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.invoice import Report, reports
from benchmarks.process import (
    LOAD_CORE,
    REPOSITORY,
    START_SECONDS,
    SUBJECT_CORE,
    NotReady,
    Process,
    cpu_seconds,
    free_port,
)
from tests.e2e.process import descendants, memory

COMPILED: Final = REPOSITORY / ".venv-compiled"
#: The gateways that are measured, and whether each is the compiled one (scripts/compile), which is not everywhere.
BUILDS: Final = {"dialback": False} | ({"dialback, compiled": True} if (COMPILED / "installed").exists() else {})
FUNCTION: Final = "benchmarks/workload/function.py:handler"
SETTLE: Final = 0.2  # seconds
PARK_SECONDS: Final = 30.0
POLL: Final = 0.05  # seconds
START: Final = " START RequestId: "
STOPS: Final = ("--timeout-graceful-shutdown", "1")
READY: Final = r"^Ready: (https?://[\w.:\[\]-]+)"
NGINX: Final = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
    access_log {folder}/nginx-access.log;
    client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-f; uwsgi_temp_path {folder}/nginx-u; scgi_temp_path {folder}/nginx-s;
    keepalive_requests 1000000000; client_max_body_size 0;
    upstream origin {{ {servers} keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /echo {{
            proxy_pass http://origin; proxy_http_version 1.1; proxy_read_timeout 600s;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";
        }}
        location / {{
            proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
            {buffers} proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s;
        }}
    }}
}}
"""


class Subject:
    """Begins with the constructor, ends with `stop`."""

    def __init__(self, name: str, measured: Process, port: int, others: tuple[Process, ...] = ()) -> None:
        self.name = name
        self.port = port
        self.measured = measured
        self._others = others

    @property
    def resident(self) -> float:
        """MiB of memory that the measured process has."""
        return memory(self.measured.pid).resident

    def behind_cpu(self) -> float:
        """Seconds that have run of what stands behind it, on the load's core."""
        roots = [other.pid for other in self._others]
        return sum(cpu_seconds(pid) for root in roots for pid in (root, *descendants(root)))

    def settle(self) -> None:
        """Wait until nothing is left of the load before."""
        time.sleep(SETTLE)

    def stop(self) -> None:
        """Idempotent."""
        for process in (self.measured, *self._others):
            process.stop()


class Dialback(Subject):
    """The real gateway before the real local Lambda."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        places: int = 100,
        environments: int = 1,
        keys: Mapping[str, object] | None = None,
        python: str = sys.executable,
        uvloop: bool = False,
        distance: tuple[int, int] | None = None,
        tls: tuple[Path, Path] | None = None,
        function: str = FUNCTION,
        root: Path = REPOSITORY,
        function_core: int | None = LOAD_CORE,
        function_variables: Mapping[str, str] | None = None,
        bare: bool = False,
        compiled: bool = False,
    ) -> None:
        """`places`: streams in each environment. `keys`: of the gateway's configuration. `python`, `uvloop`: what the
        gateway runs on. `distance`: ports on which somebody passes on what goes to the gateway from the function, and
        to the function from the gateway; `distance_targets` says where to. `tls`: certificate and key. `function`,
        `root`: its file and handler, and its task root. `function_core`: None for all of them. `bare`: the bare
        function in place of the local Lambda. `compiled`: the gateway is that of .venv-compiled, and its Python."""
        secret = secrets.token_urlsafe(32)
        port, function_port, self.admin_port = free_port(), free_port(), free_port()
        dial_port, invoke_port = distance or (port, function_port)
        host, scheme = ("localhost", "wss") if tls else ("127.0.0.1", "ws")
        self.distance_targets = (port, function_port)
        shared = {"DIALBACK_SECRET": secret}
        trusted = {"DIALBACK_CA_FILE": str(tls[0])} if tls else {}
        dialback = [sys.executable, str(REPOSITORY / "dialback.py")]
        limits = ("--environments", str(environments), "--memory", "4096")
        local = [*dialback, "lambda", function, "--port", str(function_port), "--root", str(root), *limits]
        local_lambda = Process(
            [sys.executable, "-m", "benchmarks.workload.bare_function", str(function_port)] if bare else local,
            folder / f"{name}-lambda.log",
            core=function_core,
            environment={
                **shared,
                **trusted,
                "DIALBACK_GATEWAY": f"{scheme}://{host}:{dial_port}",
                "BENCH_PLACES": str(places),
                **(function_variables or {}),
            },
        )
        local_lambda.ready("^Ready" if bare else READY)
        settings: dict[str, object] = {
            "listen": f"127.0.0.1:{port}",
            "admin": f"127.0.0.1:{self.admin_port}",
            "dial_address": f"{scheme}://{host}:{dial_port}",
            "function_url": f"http://127.0.0.1:{invoke_port}/",
            "limits.max_invocations": environments,
            "limits.max_exchanges": 20_000,
            "client.max_exchanges": 20_000,
            "client.max_connections": 15_000,
            **({"tls.cert": tls[0], "tls.key": tls[1]} if tls else {}),
            **(keys or {}),
        }
        flags = [part for key, value in settings.items() for part in (_flag(key), str(value))]
        program = COMPILED / "tree" / "dialback.py" if compiled else REPOSITORY / "dialback.py"
        gateway = Process(
            [str(COMPILED / "bin" / "python") if compiled else python]
            + (["-m", "benchmarks.uvloop_command"] if uvloop else [str(program)])
            + ["serve"]
            + flags,
            folder / f"{name}-gateway.log",
            core=SUBJECT_CORE,
            environment=shared,
        )
        gateway.ready(READY)
        self.function = local_lambda
        super().__init__(name, gateway, port, (local_lambda,))

    def settle(self) -> None:
        """Until the code of every stream has ended: one that finds all places taken by such is refused."""
        deadline = time.monotonic() + START_SECONDS
        while self.metrics("dialback_open_streams") and time.monotonic() < deadline:
            time.sleep(SETTLE)
        super().settle()

    def park(self) -> list[Report]:
        """Wait until no environment is awake; the REPORT lines of all invocations so far. Raises `NotReady`."""
        return self._reports(lambda: not self.metrics("dialback_running_invocations"))

    def ended(self) -> list[Report]:
        """The same where the gateway has stopped."""
        return self._reports(lambda: True)

    def _reports(self, is_over: Callable[[], bool]) -> list[Report]:
        deadline = time.monotonic() + PARK_SECONDS
        while time.monotonic() < deadline:
            if is_over():
                log = self.function.log.read_text(errors="replace")
                lines = reports(log)
                if len(lines) == log.count(START):
                    return lines
            time.sleep(POLL)
        raise NotReady(f"{self.name}: its environments stay awake")

    def metrics(self, name: str) -> float:
        """The sum of `dialback_NAME` over all its labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


def _flag(key: str) -> str:
    return "--" + key.replace(".", "-").replace("_", "-")


def origin(folder: Path) -> Subject:
    """The bare origin, for itself."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.workload.origin", str(port)]
    process = Process(command, folder / "origin.log")
    process.ready("Ready")
    return Subject("origin alone", process, port)


def nginx(
    folder: Path, *origins: int, name: str = "nginx", buffers: str = "", behind: tuple[Process, ...] = ()
) -> Subject:
    """`proxy_buffering off`, default buffers or `buffers`, keep-alive to the origins, one request to each in turn; its
    access log on, as ours is. `origins`: their ports. `behind`: ends with it."""
    port = free_port()
    own = folder / f"nginx-{port}"
    own.mkdir()
    configuration = own / "nginx.conf"
    servers = " ".join(f"server 127.0.0.1:{origin};" for origin in origins)
    configuration.write_text(NGINX.format(folder=own, port=port, servers=servers, buffers=buffers))
    process = Process(["nginx", "-p", str(own), "-c", str(configuration)], own / "nginx.log", core=SUBJECT_CORE)
    process.listening(port)
    return Subject(name, process, port, behind)


def aiohttp_proxy(folder: Path, origin_port: int) -> Subject:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.workload.aiohttp_proxy", str(port), str(origin_port)]
    process = Process(command, folder / "aiohttp-proxy.log", core=SUBJECT_CORE)
    process.listening(port)
    return Subject("aiohttp reverse proxy", process, port)


def uvicorn(folder: Path, *, name: str = "uvicorn, direct", core: int = SUBJECT_CORE) -> Subject:
    """The application served directly: no gateway, no proxy. Pure h11 would be slower than what people install."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.workload.asgi:application", "--port", str(port)]
    process = Process(
        [*command, "--no-access-log", "--backlog", "4096", "--timeout-keep-alive", "600", *STOPS],
        folder / f"uvicorn-{port}.log",
        core=core,
    )
    process.listening(port)
    return Subject(name, process, port)


def versions() -> dict[str, str]:
    """Of everybody who takes part."""
    code = "import json, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in %r}))"
    names = ["aiohttp", "uvloop", "uvicorn", "websockets", "msgpack", "transitions"]
    found: dict[str, str] = json.loads(subprocess.check_output([sys.executable, "-c", code % names]))
    for command in (["nginx", "-v"], ["wrk", "-v"]):
        if shutil.which(command[0]) is None:  # nothing of it was measured
            continue
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        numbers = re.search(r"\d+(?:\.\d+)+", done.stderr + done.stdout)
        found[command[0]] = numbers[0] if numbers else "?"
    return found
