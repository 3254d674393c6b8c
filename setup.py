"""What pyproject.toml cannot say: DIALBACK_COMPILE=1 makes a wheel for this platform, with what mypyc makes of the
modules that `tool.dialback.compiled` names. Without it the wheel is pure Python, and this file says nothing.

An editable install is never compiled: its sources are to be edited.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import setup

# What a mypyc generates is its version's own, so the tested one makes it; constraints.txt has the same.
MYPYC = "mypy==2.4.1"
IS_ASKED = os.environ.get("DIALBACK_COMPILE", "") not in ("", "0")


def project() -> dict[str, Any]:
    import tomllib  # Python 3.11, as the gateway itself

    return tomllib.loads(Path("pyproject.toml").read_text())


def lack() -> str | None:
    """What a build needs and this machine has not, and where to get it; or None."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "")[:1]
    if compiler and shutil.which(compiler[0]) is None:
        return f"a C compiler, and {compiler[0]} is not here. On Debian or Ubuntu type: apt-get install gcc libc6-dev"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's headers, and Python.h is not here. On Debian or Ubuntu type: apt-get install python3-dev"
    return None


def build_requirements() -> list[str]:
    """mypyc, and the libraries whose types it reads. pip asks for them before the build, and only for this one."""
    tables = project()["project"]
    extras = tables["optional-dependencies"]
    return [MYPYC, *tables["dependencies"], *extras["gateway"], *extras["compression"]] if IS_ASKED else []


def extensions() -> list[Any]:
    # Asked only for what is to be built: for the wheel's metadata nothing is compiled, and mypyc may not be there yet.
    if not IS_ASKED or not {"bdist_wheel", "build_ext"} & set(sys.argv):
        return []
    if missing := lack():
        sys.exit(f"dialback: DIALBACK_COMPILE asks for {missing}")
    from mypyc.build import mypycify

    found: list[Any] = mypycify(
        project()["tool"]["dialback"]["compiled"], opt_level="2", debug_level="0", group_name="dialback"
    )
    return found


setup(setup_requires=build_requirements(), ext_modules=extensions())
