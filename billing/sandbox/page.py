"""The one page for people: what the sandbox holds right now."""

from __future__ import annotations

from collections import Counter
from html import escape

from billing.sandbox.clock import SEOUL
from billing.sandbox.gateway import Sandbox
from billing.sandbox.model import Payment

_NEWEST = 30
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem;
color:#1c2024;background:#fcfcfd}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}p{margin:.2rem 0 1rem}
table{border-collapse:collapse;width:100%}th{text-align:left;font-weight:600}
th,td{padding:.3rem .8rem .3rem 0;border-bottom:1px solid #e0e3e7;vertical-align:top}
code{font-size:.9em}
@media(prefers-color-scheme:dark){body{color:#edeef0;background:#111113}
th,td{border-color:#2e3135}}
"""


def page(sandbox: Sandbox) -> str:
    """HTML without scripts: counts, clock, mood, newest payments."""
    ledger = sandbox.ledger
    states = Counter(one.status.value for one in ledger.payments)
    kinds = Counter(one.kind for one in ledger.requests)
    counts = {
        "billing keys": len(ledger.keys),
        **{f"payments {name}": number for name, number in sorted(states.items())},
        **{f"requests {name}": number for name, number in sorted(kinds.items())},
    }
    newest = ledger.payments[: -_NEWEST - 1 : -1]
    mood = sandbox.mood.model_dump_json(exclude_defaults=True, by_alias=True)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Sandbox gateway</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head>
<body><h1>Sandbox gateway</h1>
<p>PortOne V1 for phone billing, on this machine. No real money.
Its clock says <b>{sandbox.clock.now().astimezone(SEOUL):%Y-%m-%d %H:%M:%S} in Seoul</b>.</p>
<h2>Counts</h2>{_table(("", ""), [(name, str(number)) for name, number in counts.items()])}
<h2>Mood</h2><p><code>{escape(mood)}</code></p>
<h2>Newest payments</h2>{_table(_HEADS, [_cells(one) for one in newest])}
<p>More: <a href="/sandbox/ledger">ledger</a>, <a href="/sandbox/requests">requests</a>,
<a href="/sandbox/verdict">verdict</a>, <a href="/sandbox/faults">faults</a>.</p></body></html>"""


_HEADS = ("imp_uid", "merchant_uid", "won", "status", "by", "reason")


def _cells(one: Payment) -> tuple[str, ...]:
    return (
        one.imp_uid,
        one.merchant_uid,
        f"{one.amount:,}",
        one.status.value,
        one.origin.value,
        one.fail_reason,
    )


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    def line(tag: str, cells: tuple[str, ...]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<table>{line('th', heads) if any(heads) else ''}{body}</table>"
