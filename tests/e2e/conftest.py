"""The fixtures of the end-to-end tests; they live in `stacks`, which the tests of the examples use too."""

from tests.e2e.stacks import (
    busy_stack,
    fresh_stack,
    lag,
    only,
    shared_stack,
    stack,
    trap,
    trapped,
    trapped_neighbour,
    trapped_stack,
)

__all__ = [
    "busy_stack",
    "fresh_stack",
    "lag",
    "only",
    "shared_stack",
    "stack",
    "trap",
    "trapped",
    "trapped_neighbour",
    "trapped_stack",
]
