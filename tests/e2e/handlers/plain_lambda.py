"""A Lambda handler that knows nothing of Dialback."""

from typing import Any


def handler(event: Any, context: Any) -> dict[str, Any]:
    return {"statusCode": 200, "body": "plain"}
