"""`maewol`: the same use cases by hand.

Exit codes: 0 done, 1 the work failed or found something wrong, 2 the call or the settings are
wrong. With `--json` stdout holds one JSON document and nothing else: what was asked for, or
`{"error": …}`, which also stands on stderr for people.
"""

from __future__ import annotations

import codecs
import io
import json
import os
import sys
from typing import Any

_ESCAPED = "maewol.escaped"


def main() -> None:
    """Run the command line; every expected failure is one clear line on stderr."""
    _write_in_any_terminal()
    try:
        # Here, so that Ctrl-C is quiet from the first moment on.
        from billing.cli.commands import app

        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        from billing.cli import trouble

        found = trouble.describe(error)
        if found is None:
            raise
        if "--json" in sys.argv[1:]:
            _print_document({"error": found.text, **found.details})
        trouble.tell(found)
        raise SystemExit(found.code) from None
    raise SystemExit(code or 0)


def _write_in_any_terminal() -> None:
    """A letter that the terminal's encoding lacks is written as JSON's escape of it, so that what a
    command has done does not look as if it had failed. (UTF-8 lacks none.)"""
    codecs.register_error(_ESCAPED, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors=_ESCAPED)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _print_document(document: dict[str, Any]) -> None:
    try:
        print(json.dumps(document, ensure_ascii=False, default=str), flush=True)
    except OSError:
        # Nobody reads it, or the disk is full; the interpreter, which flushes once more when it
        # ends, must not complain in its own words.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
