"""Numbers, won, dates and durations as people read them, in one language and in Seoul's time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from markupsafe import Markup

from billing.presenting.texts import Texts

_NOTHING = "–"
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?[+-]\d\d:\d\d")


@dataclass(frozen=True, slots=True)
class Formats:
    """Everything but text. `None` is shown as a dash."""

    t: Texts
    zone: ZoneInfo

    def number(self, value: int | None) -> str:
        return _NOTHING if value is None else f"{value:,}"

    def won(self, value: int | None) -> str:
        """An amount with its currency."""
        if value is None:
            return _NOTHING
        return f"{value:,}원" if self.t.language == "ko" else f"₩{value:,}"

    def percent(self, part: int, whole: int) -> str:
        return f"{100 * part / whole:.1f}%" if whole else _NOTHING

    def day(self, value: date | None) -> str:
        return _NOTHING if value is None else value.isoformat()

    def month(self, value: date) -> str:
        return f"{value:%Y-%m}"

    def weekday(self, value: date) -> str:
        return self.t(f"weekday.d{value.weekday()}")

    def moment(self, value: datetime | None, seconds: bool = False) -> str | Markup:
        """A moment as a `<time>` element, by the minute."""
        if value is None:
            return _NOTHING
        local = value.astimezone(self.zone)
        shown = f"{local:%Y-%m-%d %H:%M:%S}" if seconds else f"{local:%Y-%m-%d %H:%M}"
        machine = local.isoformat(timespec="seconds")
        return Markup('<time datetime="{}">{}</time>').format(machine, shown)

    def left(self, until: datetime, now: datetime) -> str:
        """How much time is left: hours and minutes, or days and hours."""
        return self.span(max(until - now, timedelta(0)))

    def ago(self, since: datetime | None, now: datetime) -> str:
        """How long ago a moment was."""
        if since is None:
            return self.t("common.never")
        return self.t("common.ago", span=self.span(max(now - since, timedelta(0))))

    def span(self, length: timedelta) -> str:
        """A duration by its two largest units."""
        seconds = int(length.total_seconds())
        days, hours, minutes = seconds // 86_400, seconds // 3600 % 24, seconds // 60 % 60
        if days:
            return self.t("common.days_hours", days=days, hours=hours)
        if hours:
            return self.t("common.hours_minutes", hours=hours, minutes=minutes)
        if minutes:
            return self.t("common.minutes", minutes=minutes)
        return self.t("common.seconds", seconds=seconds)

    def readable(self, text: str) -> str:
        """Text of a use case, its moments in Seoul's time and by the minute."""
        return _ISO.sub(lambda found: self._plain(found.group()), text)

    def _plain(self, moment: str) -> str:
        return f"{datetime.fromisoformat(moment).astimezone(self.zone):%Y-%m-%d %H:%M}"

    def word(self, section: str, value: str | None) -> str:
        """A word of the book (a status, a reason) as people say it; as it is where nobody knew."""
        if value is None:
            return _NOTHING
        key = f"{section}.{value}"
        return self.t(key) if self.t.has(key) else value
