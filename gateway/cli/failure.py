"""Why a command ends: one message for the person who typed it, and an exit code."""

from __future__ import annotations

import sys
from typing import IO

import click

EXIT_FAILED = 1
"""It was asked rightly and went wrong: a busy port, a fault in the user's code, problems that `check` found."""
EXIT_USAGE = 2
"""It was not told what it needs, or was told something that cannot be."""
EXIT_INTERRUPTED = 130
"""Ctrl-C before there was anything to stop; what a shell says of it (128 + SIGINT)."""


class CommandFailed(click.ClickException):
    """Ends the command; nothing else of it is printed."""

    exit_code = EXIT_USAGE

    def show(self, file: IO[str] | None = None) -> None:
        """Print it to stderr, or to `file`."""
        click.echo(f"dialback: {self.message}", file=file or sys.stderr)


class CommandBroke(CommandFailed):
    """The same for what was asked rightly."""

    exit_code = EXIT_FAILED
