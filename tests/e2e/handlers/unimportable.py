"""Cannot be imported."""

from dialback import Request, stream_handler


@stream_handler
async def handler(request: Request) -> str:
    return "never"


raise RuntimeError("broken on import, on purpose")
