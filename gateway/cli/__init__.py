"""The `dialback` command: what people type. It alone knows both the gateway and the local Lambda."""

from gateway.cli.commands import main

__all__ = ["main"]
