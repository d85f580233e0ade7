"""In which language a browser is answered."""

from __future__ import annotations

from fastapi import Request

from billing.presenting.texts import Texts

COOKIE = "maewol_language"


def texts_for(request: Request) -> Texts:
    """In the language asked for: by `?lang=`, by an earlier choice, by the browser's languages."""
    asked = request.query_params.get("lang") or request.cookies.get(COOKIE)
    if asked in ("en", "ko"):
        return Texts("ko" if asked == "ko" else "en")
    first = request.headers.get("accept-language", "").strip().lower()
    return Texts("ko" if first.startswith("ko") else "en")
