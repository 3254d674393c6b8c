"""The fixtures of the fault tests; they are those of the end-to-end tests."""

from tests.e2e.stacks import fresh_stack, lag, shared_stack

__all__ = ["fresh_stack", "lag", "shared_stack"]
