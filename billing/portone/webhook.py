"""Reading PortOne's webhook: JSON or a form, unsigned, from anybody (docs/gateway.md §7)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import parse_qsl

from billing.domain.registration import is_imp_uid
from billing.domain.webhook import Announcement, announced
from billing.portone.answer import Unreadable

# `imp_uid`, `merchant_uid`, `status`, `cancellation_id`, and room for what may come.
_MOST_FIELDS = 32


def read(content_type: str, body: bytes) -> Announcement:
    """What was announced. Unknown fields are ignored. Raises `Unreadable`."""
    fields = _form(body) if _is_form(content_type) else _json(body)
    imp_uid = fields.get("imp_uid")
    if not isinstance(imp_uid, str) or not is_imp_uid(imp_uid):
        raise Unreadable("no imp_uid")
    return announced(imp_uid, fields.get("merchant_uid"), fields.get("status"))


def _is_form(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded"


def _form(body: bytes) -> Mapping[str, object]:
    try:
        return dict(
            parse_qsl(
                body.decode("utf-8"),
                # Else a field that is given once more, and blank, would not count.
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_MOST_FIELDS,
            )
        )
    except ValueError:
        raise Unreadable("not a form") from None


def _json(body: bytes) -> Mapping[str, object]:
    try:
        document = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Unreadable("not JSON") from None
    if not isinstance(document, dict):
        raise Unreadable("not an object")
    return document
