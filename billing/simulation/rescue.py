"""We were down from then to then: which months were lost, which could be saved, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from billing.simulation.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Affected:
    """One month that an outage kept from being charged, or tried again, in time."""

    customer_uid: str
    month: date
    planned_at: datetime
    closes_at: datetime
    asked_at: datetime | None
    ended: str

    def as_json(self) -> dict[str, Any]:
        return {
            "customer_uid": self.customer_uid,
            "month": f"{self.month:%Y-%m}",
            "planned_at": self.planned_at.isoformat(),
            "closes_at": self.closes_at.isoformat(),
            "asked_at": None if self.asked_at is None else self.asked_at.isoformat(),
            "ended": self.ended,
        }


def affected(
    evidence: Evidence, outages: Sequence[tuple[datetime, datetime]]
) -> tuple[list[Affected], list[Affected]]:
    """(lost, saved): the lost by the close of their window, the saved in the order asked."""
    rows = list(_rows(evidence, outages))
    lost = sorted((one for one in rows if one.ended != "paid"), key=lambda one: one.closes_at)
    saved = [one for one in rows if one.ended == "paid" and one.asked_at is not None]
    return lost, sorted(saved, key=lambda one: (str(one.asked_at), one.closes_at))


def _rows(evidence: Evidence, outages: Sequence[tuple[datetime, datetime]]) -> Iterator[Affected]:
    told: set[tuple[str, date]] = set()
    for row in evidence.attempts:
        whose, sent_at = (row["customer_uid"], row["month"]), row["sent_at"]
        if whose in told:
            continue
        hit = any(
            begins <= row["planned_at"] < ends and (sent_at is None or sent_at >= ends)
            for begins, ends in outages
        )
        if hit:
            told.add(whose)
            reason = f" ({row['reason']})" if row["reason"] else ""
            ended = row["ended"] if row["ended"] == "paid" else f"{row['ended']}{reason}"
            yield Affected(
                customer_uid=row["customer_uid"],
                month=row["month"],
                planned_at=row["planned_at"],
                closes_at=row["closes_at"],
                asked_at=sent_at,
                ended=ended,
            )
