"""What a local Lambda is told and what it tells: its settings, its log lines, the state of its environments.

Data only. Nothing here may know how any of it is done.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Freeze = Literal["auto", "process", "none"]
State = Literal["starting", "idle", "busy", "ended"]


@dataclass(frozen=True, slots=True)
class FunctionSettings:
    """One function, as `LocalLambda` runs it."""

    handler: str
    """As the runtime client takes it: "folder/module.function"."""
    root: Path
    """Task root: the function's working directory and the first entry of its sys.path (LAMBDA_TASK_ROOT)."""
    name: str = "function"
    """AWS_LAMBDA_FUNCTION_NAME."""
    environments: int = 10
    """How many environments there may be at once; past it a request is answered 429."""
    timeout: float = 900.0
    """Seconds that one invocation may take; then its process is killed."""
    memory: int = 1024
    """MiB: AWS_LAMBDA_FUNCTION_MEMORY_SIZE; a process whose resident memory exceeds it is killed."""
    idle_timeout: float = 300.0
    """Seconds after which an environment that serves nothing is reaped."""
    freeze: Freeze = "auto"
    """Between invocations: "process" stops the process, "auto" also its network where allowed, "none" neither."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for the function, over those of the caller."""
    python: str = sys.executable
    """The interpreter, one that can import awslambdaric."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One entry of the function's log."""

    time: float
    """Seconds since the Unix epoch."""
    environment: str
    """Which environment it is about: a short id, or "" for the service itself."""
    source: Literal["function", "platform"]
    """"function": written by the process to stdout or stderr; "platform": START, END, REPORT and the like."""
    text: str
    """Without the newline at its end. The runtime client's tracebacks are one entry of several lines."""


@dataclass(frozen=True, slots=True)
class InitError:
    """Why a function could not be initialised."""

    type: str
    """For example "Runtime.ImportModuleError", "Runtime.UserCodeSyntaxError", "Runtime.ExitError"."""
    message: str
    trace: tuple[str, ...] = ()
    """Lines of the traceback, innermost last."""

    def __str__(self) -> str:
        return "\n".join([f"{self.type}: {self.message}", *(line.rstrip("\n") for line in self.trace)])


@dataclass(frozen=True, slots=True)
class EnvironmentState:
    """One environment at one moment."""

    id: str
    pid: int
    state: State
    """"idle" means waiting for an event, and frozen unless the settings say otherwise."""
    invocations: int
    """Events given to it so far."""
    age: float
    """Seconds since its process was started."""
