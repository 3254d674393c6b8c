"""Libraries that people use, server and client, on the real stack."""

from tests.e2e.stacks import fresh_stack, lag, shared_stack

__all__ = ["fresh_stack", "lag", "shared_stack"]
