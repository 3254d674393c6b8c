"""The environment variables of a function's process, as Lambda sets them.

Source: AWS, "Using Lambda environment variables", defined runtime environment variables.
"""

import os
from datetime import datetime, timezone
from pathlib import Path

from local_lambda.settings import FunctionSettings

DEFAULT_REGION = "us-east-1"
RESERVED_PREFIXES = ("AWS_LAMBDA_", "_LAMBDA_", "_X_AMZN_", "_HANDLER")
"""Not passed through from the caller: AWS_LAMBDA_MAX_CONCURRENCY, for one, makes the runtime client fork workers."""
LOGGING_VARIABLES = ("AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL")
"""The exceptions: settings of the function, not facts about it."""


def region() -> str:
    """The caller's AWS_REGION or AWS_DEFAULT_REGION, else us-east-1."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or DEFAULT_REGION


def variables(settings: FunctionSettings, runtime_api: str, environment_id: str, scratch: Path) -> dict[str, str]:
    """All variables for one environment but AWS_EXECUTION_ENV, which its interpreter knows best.

    `scratch` becomes TMPDIR: a folder of its own, where Lambda has a /tmp of its own.
    """
    given = {**os.environ, **settings.environment}
    passed = {
        key: value for key, value in given.items() if key in LOGGING_VARIABLES or not key.startswith(RESERVED_PREFIXES)
    }
    today = datetime.now(timezone.utc).strftime("%Y/%m/%d")
    return {
        "AWS_REGION": region(),
        "AWS_DEFAULT_REGION": region(),
        **passed,
        "_HANDLER": settings.handler,
        "AWS_LAMBDA_FUNCTION_NAME": settings.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(settings.memory),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{settings.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"{today}/[$LATEST]{environment_id}",
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "LAMBDA_TASK_ROOT": str(settings.root),
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "TMPDIR": str(scratch),
        "TZ": ":UTC",
    }
