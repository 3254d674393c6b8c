"""The lines that Lambda writes about an invocation, in its own format.

Source: AWS, "Lambda function logs": REPORT; and what real functions' logs were recorded to say of failures.
"""

import math
import time
from dataclasses import dataclass

from local_lambda.runtime_api import FunctionError


@dataclass(frozen=True, slots=True)
class Report:
    """The REPORT line. Durations in seconds, memory in MiB; `init` only with an environment's first invocation."""

    request_id: str
    duration: float
    init: float | None
    memory: int
    peak_memory: int
    failure: FunctionError | None

    def __str__(self) -> str:
        # The init phase is billed too, since August 2025.
        billed = math.ceil((self.duration + (self.init or 0.0)) * 1000)
        fields = [
            f"REPORT RequestId: {self.request_id}",
            f"Duration: {self.duration * 1000:.2f} ms",
            f"Billed Duration: {billed} ms",
            f"Memory Size: {self.memory} MB",
            f"Max Memory Used: {self.peak_memory} MB",
        ]
        if self.init is not None:
            fields.append(f"Init Duration: {self.init * 1000:.2f} ms")
        if self.failure is not None:
            fields.append("Status: timeout" if _timed_out(self.failure) else "Status: error")
        if self.failure is not None and not _timed_out(self.failure):
            fields.append(f"Error Type: {self.failure.type}")
        return "\t".join(fields) + "\t"


def failure_text(request_id: str, failure: FunctionError) -> str:
    """What the log says of an invocation that the runtime did not survive."""
    if _timed_out(failure):
        now = time.time()
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03d}Z"
        return f"{stamp} {request_id} {failure.message}"
    return f"RequestId: {request_id} Error: {failure.message}\n{failure.type}"


def _timed_out(failure: FunctionError) -> bool:
    return failure.type == "Sandbox.Timedout"
