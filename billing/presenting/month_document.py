"""The month's report as one document for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from zoneinfo import ZoneInfo

from billing.domain.money import Sum
from billing.domain.month_figures import Outcomes, Unknowns, Unpaid, share
from billing.services.report import Day, MonthFigures, MonthReport


def document(report: MonthReport, zone: ZoneInfo) -> dict[str, Any]:
    """Every figure of the report. A share is counted by cycles, of those that were due; None where
    none were."""
    figures = report.figures
    return {
        "month": f"{figures.first_day:%Y-%m}",
        "made_at": report.made_at.astimezone(zone).isoformat(timespec="seconds"),
        "over": report.over,
        **headline(figures),
        "days": [_day(day) for day in figures.days],
        "missed": _unpaid(figures.outcomes.lost),
        "skipped": _unpaid(figures.outcomes.left_out),
        "declines": [
            {
                "decline_class": one.decline_class,
                "declines": one.declines,
                "cycles": one.cycles,
                "paid": one.paid,
                "open": one.open,
            }
            for one in report.declines
        ],
        "decline_codes": [
            {"decline_class": one.decline_class, "code": one.code, "declines": one.declines}
            for one in report.codes
        ],
        "decline_codes_beyond": report.other_texts,
        "before": headline(report.before) | {"month": f"{report.before.first_day:%Y-%m}"},
        "differences_open": dict(report.differences),
        "proofs": {
            "verdict": str(report.verdict),
            "days": [
                {"on": one.on.isoformat(), "file": one.file, "says": str(one.says)}
                for one in report.proofs
            ],
        },
    }


def headline(figures: MonthFigures) -> dict[str, Any]:
    """What two months are compared by."""
    return {
        "collected": _sum(figures.collected),
        "refunded": _sum(figures.refunded),
        "refunded_besides": _sum(figures.besides),
        "net_won": figures.net_won,
        "cycles": _cycles(figures.outcomes),
        "unknowns": _unknowns(figures.unknowns),
        "subscribers": {
            "gained": _sum(figures.gained.in_all),
            "registered_anew": _sum(figures.gained.anew),
            "taken_over": _sum(figures.gained.taken_over),
            "lost": _sum(figures.lost_in_all),
            "lost_by": [
                {"how": one.kind.partition(".")[2], "reason": one.reason, **_sum(one.sum)}
                for one in figures.lost
            ],
        },
    }


def _cycles(outcomes: Outcomes) -> dict[str, Any]:
    parts = {
        "paid": outcomes.collected,
        **{f"paid_{way}": total for way, total in outcomes.by_way.items()},
        "paid_then_refunded": outcomes.refunded,
        "missed": outcomes.missed,
        "skipped": outcomes.skipped,
        "held": outcomes.held,
        "open": outcomes.open,
        "to_come": outcomes.to_come,
    }
    due = outcomes.due
    found = {name: {**_sum(part), "share": share(part, due)} for name, part in parts.items()}
    return {"due": _sum(due), **found}


def _unknowns(unknowns: Unknowns) -> dict[str, int]:
    return {
        "all": unknowns.all,
        "charged": unknowns.charged,
        "declined": unknowns.declined,
        "withdrawn": unknowns.withdrawn,
        "open": unknowns.open,
    }


def _unpaid(parts: Iterable[Unpaid]) -> list[dict[str, Any]]:
    return [
        {"reason": one.reason, "last_decline": one.last_decline, **_sum(one.sum)} for one in parts
    ]


def _day(day: Day) -> dict[str, Any]:
    return {
        "on": day.on.isoformat(),
        **_sum(day.collected),
        "refunded": _sum(day.refunded),
        "refunded_besides": _sum(day.besides),
        "net_won": day.net_won,
    }


def _sum(total: Sum) -> dict[str, int]:
    return {"count": total.count, "won": total.won}
