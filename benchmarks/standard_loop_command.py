"""The `dialback` command on asyncio's own event loop, for loops to be measured beside each other."""

from __future__ import annotations

import asyncio
import sys

from dialback import main
from gateway.cli import foreground

if __name__ == "__main__":
    vars(foreground)["new_event_loop"] = asyncio.new_event_loop
    sys.exit(main())
