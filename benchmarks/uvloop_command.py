"""The `dialback` command on uvloop, for loops to be measured beside each other."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from dialback import main

if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    sys.exit(main())
