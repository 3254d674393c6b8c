"""docs/configuration.md, written from the key tables: `python -m scripts.reference > docs/configuration.md`.

A test compares the two, so that the document cannot say anything else than the program does.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway import keys
from gateway.keys import Key

HEAD = """\
# Configuration

<!-- Written by `python -m scripts.reference`; change gateway/keys.py, not this file. -->

`dialback serve` takes its configuration from flags, from the environment and from a TOML file (`--config FILE` or
`DIALBACK_CONFIG`). A flag wins over a variable, a variable over the file. Names follow one rule: `session.grace` is
`grace` in the file's table `[session]`, the flag `--session-grace` and the variable `DIALBACK_SESSION_GRACE`.

A key that does not exist is an error, as is a `DIALBACK_` variable that means nothing; an empty variable counts as not
set. `dialback check FILE` says all that is wrong. Sizes are in bytes and times in seconds; paths in a file start at the
file's folder.

One function needs no file:

```sh
export DIALBACK_SECRET="$(dialback secret)"
dialback serve --function-url https://YOUR-FUNCTION-URL/ --listen 0.0.0.0:8080 --dial-address wss://gateway.example.com
```

Several functions need one:

```toml
listen = "0.0.0.0:8080"
dial_address = "wss://gateway.example.com"
linger = 1                      # of every function that has no linger of its own

[functions.shop]
url = "https://SHOP-FUNCTION-URL/"
secret_env = "SHOP_SECRET"

[functions.reports]
url = "https://REPORTS-FUNCTION-URL/"
secret_env = "REPORTS_SECRET"
limits.max_invocations = 5

[[routes]]
path = "/"
function = "shop"

[[routes]]
path = "/reports"
function = "reports"
```
"""

SECTIONS: tuple[tuple[str, str, tuple[Key[object], ...]], ...] = (
    ("The gateway", "At the top of the file, or in the table before the dot.", keys.GATEWAY_KEYS),
    (
        "Functions",
        "In `[functions.NAME]`, for that function; at the top of the file, as a flag or as a variable, for every\n"
        "function that has no such value of its own. `secret` has no flag: every process of a machine can read a\n"
        "command line.",
        keys.FUNCTION_KEYS,
    ),
    ("Only in `[functions.NAME]`", "NAME has letters, digits, `-` and `_`, 64 at most.", keys.TABLE_KEYS),
    (
        "Only in `[[routes]]`",
        "Which requests go to which function: the exact host first, then `*.`, then any host; of the paths, the\n"
        "longest. A path matches whole segments: `/api` takes `/api` and `/api/x`, not `/apix`. Paths under\n"
        "`/_dialback/` are the gateway's own. A single function needs no route.",
        keys.ROUTE_KEYS,
    ),
)

FOOT = """\
## Variables that are no keys

| variable | who reads it | what for |
|---|---|---|
| `DIALBACK_CONFIG` | `dialback serve` | the file, as `--config` |
| `DIALBACK_SECRET` | also the function | the secrets that it accepts, comma-separated |
| `DIALBACK_GATEWAY` | the function | the addresses that it may dial, comma-separated |
| `DIALBACK_ALLOW_INSECURE` | the function | `1`: it may dial `ws://` beyond loopback |
| `DIALBACK_CA_FILE` | the function | the authorities (PEM) of the gateway's certificate, in place of the system's |
| `DIALBACK_CERT_FILE`, `DIALBACK_KEY_FILE` | the function | what it shows the gateway (PEM), and the key |
| `DIALBACK_ONLY` | the function | `1`: plain events, without an invitation, are refused |
| `DIALBACK_BLOCKED_LOOP` | the function | seconds from which its log names a blocked event loop; default 1, 0: never |
"""


def reference() -> str:
    """The whole document, in Markdown."""
    parts = [HEAD]
    for title, text, section in SECTIONS:
        parts.append(f"## {title}\n\n{text}\n\n{_table(section)}")
    return "\n".join([*parts, FOOT])


def _table(section: Sequence[Key[object]]) -> str:
    rows = ["| key | value | default | what it is for |", "|---|---|---|---|"]
    for key in section:
        value = ", ".join(filter(None, [key.kind.unit or key.kind.placeholder, key.kind.limits])).replace("|", "\\|")
        default = key.shown_default or "none"
        shown = default if key.default_text or default == "none" else f"`{default}`"
        rows.append(f"| `{key.name}` | {value} | {shown} | {key.text} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
