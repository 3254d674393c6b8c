"""The wire between gateway and function, sans-I/O (docs/protocol.md).

Bytes and a clock go in, events and bytes come out. Nothing here knows a socket, an event loop, a thread,
the time or chance; only msgpack is imported.
"""
