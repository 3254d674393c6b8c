"""Whether what is tested was compiled (scripts/compile), which some tests cannot have."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ExtensionFileLoader
from typing import Final

_SPEC = importlib.util.find_spec("protocol.session")
IS_COMPILED: Final = _SPEC is not None and isinstance(_SPEC.loader, ExtensionFileLoader)
