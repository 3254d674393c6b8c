"""Clients that people use, on the real stack."""

from tests.e2e.stacks import fresh_stack, lag, shared_stack, stack

__all__ = ["fresh_stack", "lag", "shared_stack", "stack"]
