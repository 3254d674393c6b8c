"""The ASGI application as a function, for WebSockets."""

from __future__ import annotations

import os

from benchmarks.workload.asgi import application
from dialback import asgi_handler

handler = asgi_handler(application, concurrency=int(os.environ.get("BENCH_PLACES", "1")), lifespan="off")
