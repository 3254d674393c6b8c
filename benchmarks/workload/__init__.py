"""What is served in a benchmark: the same responses by a function, an origin and an ASGI application."""
