"""The commands and their flags, nothing of their work.

What a command needs is imported when it runs: `dialback secret` and `--help` must not wait for servers.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway import keys
from gateway.cli.failure import EXIT_FAILED, EXIT_INTERRUPTED, CommandBroke, CommandFailed
from gateway.cli.starter import STARTER
from protocol import errors

if TYPE_CHECKING:
    from gateway.cli.target import Target

SECRET_BYTES = 32
"""Of chance, printed as 43 characters."""
LIBRARIES = ("aiohttp", "structlog", "watchfiles")
"""What servers load later: `dialback.main` says now which is missing."""
for _library in LIBRARIES:
    if importlib.util.find_spec(_library) is None:
        raise ModuleNotFoundError(f"No module named {_library!r}", name=_library)


class InOrder(click.Group):
    """Lists commands as a newcomer meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _version() -> str:
    try:
        version = importlib.metadata.version("dialback")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return f"{version}, {'interpreted' if str(errors.__file__).endswith('.py') else 'compiled'}"


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(_version(), prog_name="dialback", message="%(prog)s %(version)s")
def dialback() -> None:
    """Streaming for AWS Lambda functions: a gateway takes the HTTP request and invokes the function, and the function
    dials back to stream its answer.

    \b
    Begin here:
      dialback init                           write a first handler.py
      dialback dev handler.py:handler         serve it on this machine; it reloads when you save
      curl -N http://127.0.0.1:8080/          see it stream
    """


def _port(default: int, text: str) -> click.Option:
    return click.Option(
        ["--port"], metavar="PORT", type=click.IntRange(0, 65535), default=default, show_default=True, help=text
    )


LAMBDA_OPTIONS = (
    click.Option(["--host"], default="127.0.0.1", show_default=True, help="The address to listen on."),
    click.Option(
        ["--root"],
        type=click.Path(path_type=Path),
        help="The task root: the function's working directory, from which it imports. "
        "[default: the working directory when FILE is inside it, else FILE's folder]",
    ),
    click.Option(
        ["--environments"],
        metavar="N",
        type=click.IntRange(1, 1000),
        default=10,
        show_default=True,
        help="How many processes of the function may run at once.",
    ),
    click.Option(
        ["--timeout"],
        metavar="SECONDS",
        type=click.FloatRange(1, 900),
        default=900.0,
        show_default=True,
        help="Seconds that one invocation may take; then its process is killed.",
    ),
    click.Option(
        ["--memory"],
        metavar="MIB",
        type=click.IntRange(128, 10240),
        default=1024,
        show_default=True,
        help="MiB that a process of the function may use.",
    ),
)


@dialback.command(
    short_help="Serve a function on this machine, and reload it on save.",
    params=[_port(8080, "The port to serve on."), *LAMBDA_OPTIONS],
)
@click.argument("function", metavar="FILE.py:NAME")
@click.option("--no-reload", is_flag=True, help="Do not watch the task root for changes.")
@click.option("--admin", metavar="HOST:PORT", help="Also serve /healthz, /readyz and /metrics, there.")
def dev(
    function: str, port: int, host: str, root: Path | None, no_reload: bool, admin: str | None, **given: Any
) -> int:
    """Serve a function on this machine: the gateway and a local Lambda in one.

    FILE.py:NAME is a file and the name of its handler, for example examples/chunks.py:handler. When you save a file,
    running streams get two seconds to finish and new requests get the new code; a file that cannot run changes nothing.

    What the gateway of deployed functions takes for a function (--affinity, --compression, --cancel-after) is a flag
    here too, and a variable: --affinity is DIALBACK_AFFINITY.
    """
    from gateway.cli import dev as command
    from gateway.cli import foreground

    flags = {FLAG_KEYS[name]: value for name, value in given.items() if name in FLAG_KEYS and value is not None}
    limits = {name: value for name, value in given.items() if name not in FLAG_KEYS}
    options = command.DevOptions(host=host, port=port, admin=admin, is_reloading=not no_reload, flags=flags)
    return foreground.run(command.DevLoop(_target(function, root, must_stream=True), limits, options).run())


@dialback.command(short_help="Run the gateway in front of deployed functions.")
@click.option(
    "--config", type=click.Path(path_type=Path), envvar="DIALBACK_CONFIG", help="A TOML file; flags win over it."
)
def serve(config: Path | None, **given: str | None) -> int:
    """Run the gateway in front of functions that are deployed.

    \b
    One function needs no file:
      export DIALBACK_SECRET="$(dialback secret)"      the function needs the same
      dialback serve --function-url https://... --listen 0.0.0.0:8080 --dial-address wss://gateway.example.com

    Every flag but --config is a variable and a key of the file too: --tls-cert is DIALBACK_TLS_CERT, and cert in
    the file's table [tls]. docs/configuration.md has all of them.
    """
    from gateway.config import ConfigError
    from gateway.sources import load

    flags = {FLAG_KEYS[name]: value for name, value in given.items() if value is not None}
    try:
        loaded = load(flags=flags, environ=os.environ, file=config)
    except ConfigError as error:
        raise CommandFailed(f"the configuration cannot be used:\n{error}") from None
    from gateway.cli import foreground
    from gateway.cli import serve as command

    return foreground.run(command.serve(loaded))


@dialback.command(
    "lambda",
    short_help="Run a local Lambda alone, behind a Function URL.",
    params=[_port(9000, "The port of the Function URL; 0: any free one."), *LAMBDA_OPTIONS],
)
@click.argument("function", metavar="FILE.py:NAME")
def lambda_(function: str, port: int, host: str, root: Path | None, **limits: float) -> int:
    """Run a local Lambda alone: a Function URL that gateways can invoke.

    Any Lambda handler runs on it, as on AWS, with this shell's variables. It takes a gateway's invitations when
    DIALBACK_GATEWAY and DIALBACK_SECRET are set.
    """
    from gateway.cli import foreground
    from gateway.cli import local as command

    return foreground.run(command.serve(_target(function, root, must_stream=False), limits, host, port))


@dialback.command(short_help="Say what is wrong in a configuration.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--root", type=click.Path(path_type=Path), help="A task root, or the folder that goes into the function's zip."
)
def check(file: Path | None, root: Path | None) -> int:
    """Say all that is wrong in a configuration FILE, with the DIALBACK_ variables of this shell.

    With --root also look for files in a function's folder that bear the names of Dialback's own packages.
    """
    if file is None and root is None:
        raise click.UsageError("nothing to check. Type: dialback check dialback.toml")
    problems = [*(_check_file(file) if file else ()), *(_check_root(root) if root else ())]
    for problem in problems:
        click.echo(problem, err=True)
    return EXIT_FAILED if problems else 0


@dialback.command(short_help="Print a new secret.")
def secret() -> int:
    """Print a new secret for DIALBACK_SECRET, which the gateway and the function share."""
    click.echo(secrets.token_urlsafe(SECRET_BYTES))
    return 0


@dialback.command(short_help="Write a first handler.py.")
@click.argument("file", default="handler.py", type=click.Path(path_type=Path))
def init(file: Path) -> int:
    """Write a first handler to FILE (handler.py); never over a file that is there."""
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(STARTER.format(file=file))
    except FileExistsError:
        message = f"{file} is there already and stays as it is. Type: dialback init another_{file.name}"
        raise CommandBroke(message) from None
    except OSError as fault:
        raise CommandBroke(f"{file} cannot be written: {fault.strerror}") from None
    click.echo(f"Wrote {file}. Now type: dialback dev {file}:handler")
    return 0


FLAG_KEYS: dict[str, str] = {}
"""The name of each generated flag, as click passes it, and the key that it sets."""
for _key in (*keys.GATEWAY_KEYS, *keys.FUNCTION_KEYS):
    if _key.name not in keys.KEYS_WITHOUT_FLAG:
        _option = click.Option([_key.flag], metavar=_key.kind.placeholder, help=_key.help_text)
        FLAG_KEYS[str(_option.name)] = _key.name
        serve.params.append(_option)
        if _key in keys.DEV_KEYS:
            dev.params.append(_option)


def _target(function: str, root: Path | None, *, must_stream: bool) -> Target:
    """The function to run here, found and looked at; and what running it needs."""
    from gateway.cli.target import TargetError, check_source, parse

    if importlib.util.find_spec("awslambdaric") is None:
        if sys.platform == "linux":
            raise CommandFailed("AWS's runtime client is not installed. Type: pip install 'dialback[dev]'")
        raise CommandFailed("AWS's runtime client runs on Linux only. Type: docker compose up")
    try:
        target = parse(function, root)
        check_source(target, must_stream=must_stream)
    except TargetError as error:
        raise CommandFailed(str(error)) from None
    return target


def _check_file(file: Path) -> list[str]:
    from gateway.config import ConfigError
    from gateway.sources import load

    try:
        config = load(environ=os.environ, file=file)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    for note in config.notes():
        click.echo(f"note: {note}")
    click.echo(f"{file}: nothing is wrong. Functions: {', '.join(sorted(config.functions))}")
    return []


def _check_root(root: Path) -> list[str]:
    from gateway.cli import shadows

    if not root.is_dir():
        return [f"--root {root} is no folder"]
    found = [shadows.advice(file, root) for file in shadows.find(root)]
    if not found:
        click.echo(f"{root}: no file bears the name of one of Dialback's packages")
    return found


def main() -> int:
    """Run the command that `sys.argv` names; returns the exit code: 0, 1 (it failed) or 2 (it was not told enough)."""
    try:
        result = dialback.main(prog_name="dialback", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except click.ClickException as failure:
        failure.show()
        return failure.exit_code
    return result if isinstance(result, int) else 0
