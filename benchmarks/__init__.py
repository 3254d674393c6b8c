"""`make bench`: Dialback beside nginx, an aiohttp reverse proxy and uvicorn, in one run. Nothing of it ships."""
