"""What `FILE.py:NAME` means: which file, which name in it, which task root; and what is wrong with it, said helpfully.

It reads the file as text and never runs it: the user's code runs in the function's process only.
"""

from __future__ import annotations

import ast
import difflib
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

USUAL_NAME = "handler"
VALUES = (ast.Constant, ast.JoinedStr, ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
"""Expressions that make nothing that could be called, whatever is in them; but None stands for what is set later."""
FIRST_LINES = """
    from dialback import stream_handler

    @stream_handler
    def handler(request):
        yield "hello"
"""


class TargetError(Exception):
    """The text does not lead to a function; the message says what to type instead."""


@dataclass(frozen=True, slots=True)
class Target:
    """A function in a file, found. What the file holds later is another matter: see `check_source`."""

    file: Path
    """Absolute."""
    name: str
    root: Path
    """Task root: the function's working directory and the first entry of its sys.path."""

    @property
    def handler(self) -> str:
        """As AWS's runtime client takes it, which splits at the last dot: `examples/chunks.handler`."""
        return f"{self.file.relative_to(self.root).with_suffix('').as_posix()}.{self.name}"

    @property
    def shown(self) -> str:
        """As in messages: the file from the task root."""
        return f"{self.file.relative_to(self.root).as_posix()}:{self.name}"


def parse(text: str, root: Path | None = None, *, directory: Path | None = None) -> Target:
    """Find the function that `text` names, from `directory` (the working directory). Raises `TargetError`."""
    here = (directory or Path.cwd()).resolve()
    path_text, colon, name = text.rpartition(":")
    if not colon or "/" in name or "\\" in name:
        raise TargetError(_no_name(text, here))
    file = (here / path_text).resolve()
    if not file.is_file() or file.suffix != ".py":
        raise TargetError(_no_file(path_text, name, here))
    if not name.isidentifier():
        raise TargetError(
            f"{name or 'nothing'!r} after the colon is no name of a function; type: {path_text}:{USUAL_NAME}"
        )
    return Target(file, name, _task_root(file, root, here))


def check_source(target: Target, *, must_stream: bool) -> None:
    """See, without running it, that the file can be compiled and has the name. Raises `TargetError`.

    `must_stream`: a plain function, without any decorator, will not do either.
    """
    try:
        tree = ast.parse(target.file.read_bytes(), str(target.file))
    except (SyntaxError, ValueError) as fault:
        said = "".join(traceback.format_exception_only(fault)).rstrip()
        raise TargetError(f"{target.file.name} is not Python that can be run:\n{said}") from None
    except OSError as fault:  # editors replace a file by moving it away first
        raise TargetError(f"{target.file.name} cannot be read: {fault.strerror}") from None
    names = dict(_bindings(tree.body))
    if target.name not in names and "*" not in names:
        raise TargetError(f"{target.file.name} has no {target.name!r}{_suggestion(target.name, names)}")
    if names.get(target.name) == "value":
        raise TargetError(f"{target.name!r} in {target.file.name} is a value, no function{_suggestion('', names)}")
    if must_stream and names.get(target.name) == "plain":
        raise TargetError(
            f"{target.name!r} in {target.file.name} is a plain function. Put these lines where they belong:\n"
            "    from dialback import stream_handler\n\n"
            f"    @stream_handler\n    def {target.name}(...)"
        )


def _bindings(body: Iterable[ast.stmt]) -> Iterator[tuple[str, str]]:
    """(name, kind) of what statements bind at a module's top level, later ones later; a star import is `*`."""
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, "decorated" if node.decorator_list else "plain"
            case ast.ClassDef(name=name):
                yield name, "other"
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                for alias in aliases:
                    yield alias.asname or alias.name.partition(".")[0], "other"
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if isinstance(node.value, VALUES) and getattr(node.value, "value", ...) is not None:
                    yield from ((target.id, "value") for target in targets if isinstance(target, ast.Name))
                    continue
                for part in (part for target in targets for part in ast.walk(target)):
                    if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                        yield part.id, "other"
            case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While():
                bodies = [getattr(node, field, []) for field in ("body", "orelse", "finalbody")]
                bodies += [handler.body for handler in getattr(node, "handlers", [])]
                for name, kind in (binding for statements in bodies for binding in _bindings(statements)):
                    yield name, "other" if kind == "value" else kind  # perhaps


def _task_root(file: Path, root: Path | None, here: Path) -> Path:
    chosen = (here / root).resolve() if root is not None else here if file.is_relative_to(here) else file.parent
    if not chosen.is_dir():
        raise TargetError(f"--root {root} is no folder")
    if not file.is_relative_to(chosen):
        raise TargetError(f"{file} is not inside --root {root}")
    dotted = [part for part in file.relative_to(chosen).with_suffix("").parts if "." in part]
    if dotted:
        # The runtime client turns / into . and imports the result: a dot in a name would be a package's.
        raise TargetError(
            f"Lambda cannot import {file.relative_to(chosen)}: {dotted[0]!r} has a dot in its name. "
            f"Rename it, or type: --root {file.parent}"
        )
    return chosen


def _no_name(text: str, here: Path) -> str:
    file = here / text
    if file.suffix == ".py" and file.is_file():
        try:
            names = dict(_bindings(ast.parse(file.read_bytes()).body))
        except (SyntaxError, ValueError):
            names = {USUAL_NAME: "other"}  # nobody knows; what is wrong is said next time
        if not {"decorated", "plain", "other"} & set(names.values()):
            return f"{text} is a file without a function. Put one into it:{FIRST_LINES}and type: {text}:{USUAL_NAME}"
        decorated = [name for name, kind in names.items() if kind == "decorated"]
        best = USUAL_NAME if USUAL_NAME in names or not decorated else decorated[-1]
        return f"{text} is a file; which function in it? Type: {text}:{best}"
    return f"{text!r} is not FILE.py:NAME, for example examples/chunks.py:{USUAL_NAME}"


def _no_file(path_text: str, name: str, here: Path) -> str:
    as_module = path_text.replace(".", "/") + ".py"
    for candidate in (path_text + ".py", as_module):
        if (here / candidate).is_file():
            return f"{path_text} is no Python file; did you mean {candidate}:{name}?"
    file = here / path_text
    if file.is_file():
        return f"{path_text} is no Python file: its name must end in .py"
    if not file.parent.is_dir():
        return f"there is no folder {file.parent}, so there is no {path_text} in it"
    siblings = [sibling.name for sibling in file.parent.glob("*.py")]
    matches = difflib.get_close_matches(file.name, siblings, n=1)
    hint = f"; did you mean {Path(path_text).parent / matches[0]}:{name}?" if matches else ""
    return f"there is no file {path_text} in {here}{hint}"


def _suggestion(name: str, names: dict[str, str]) -> str:
    functions = [other for other, kind in names.items() if kind in ("decorated", "plain")]
    if name != USUAL_NAME and names.get(USUAL_NAME, "value") != "value":
        return f"; did you mean {USUAL_NAME}?"  # an app's other functions are its endpoints
    if matches := difflib.get_close_matches(name, names, n=1):
        return f"; did you mean {matches[0]}?"
    if functions:
        return f"; its functions are: {', '.join(functions)}"
    return f"; it has no function at all. Put one into it:{FIRST_LINES}"
