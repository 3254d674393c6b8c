"""Each example is served by the real stack, as `dialback serve` and `dialback lambda` run it."""

from tests.e2e.stacks import fresh_stack, lag, shared_stack

__all__ = ["fresh_stack", "lag", "shared_stack"]
