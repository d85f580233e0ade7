"""What must happen sometimes: a simulation in which it never does proves nothing about it."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Final

from billing.simulation.evidence import Evidence
from billing.simulation.world import World

# A campaign of a hundred seeds in which one of these never happened counts as failed.
CLASSES: Final = (
    "unknown, then approved",
    "unknown, then declined",
    "unknown, then the same uid again",
    "refused by the fence",
    "lease ran out in flight",
    "401 in flight",
    "paid elsewhere",
    "paid late",
    "missed: declined",
    "missed: not_attempted",
    "missed: unproven",
    "missed: held",
    "skipped: paused",
    "skipped: cancelled",
    "gateway down, then up",
    "caught up after a day",
    "all charging held",
    "cycle held",
    "answer contradicts",
    "suspended: key invalid",
    "suspended: chain broken",
    "chain mended",
    "process killed",
    "process frozen",
    "clock found wrong",
    "record given up",
    "webhook: counted",
    "webhook: inquired",
    "webhook: stranger or nobody's",
    "webhook: unreadable",
    "reconciled whole",
    "reconciled: applied",
    "reconciled: told of",
    "given back by us",
    "given back elsewhere, followed",
    "refund unknown, then done",
    "refund proved not given back, sent again",
    "refund refused",
    "noticed: book in another place",
    "noticed: book went back in time",
    "paid in a time that the book forgot",
    "edited row held",
    "edited row put right",
)


def sometimes(evidence: Evidence, world: World) -> Counter[str]:
    """How often each class happened in one run."""
    found: Counter[str] = Counter()
    unknown: set[int] = set()
    proved: set[int] = set()
    down = False
    for line in evidence.told:
        attempt = line.attempt
        match line.kind:
            case "attempt.unknown" if attempt is not None:
                unknown.add(attempt)
                if line.data.get("why") == "the lease ran out":
                    found["lease ran out in flight"] += 1
            case "attempt.not_sent" if attempt in unknown:
                unknown.discard(attempt)
                proved.add(attempt)
            case "attempt.sending" if attempt in proved:
                found["unknown, then the same uid again"] += 1
            case "attempt.approved":
                found["unknown, then approved"] += attempt in unknown
                found["gateway down, then up"] += down
                down = False
            case "attempt.declined":
                found["unknown, then declined"] += attempt in unknown
            case "answer.too_late":
                found["refused by the fence"] += 1
            case "gateway.down":
                down = True
            case "charging.held":
                found["all charging held"] += 1
                why = str(line.data.get("why"))
                found["noticed: book in another place"] += "moved or restored" in why
                found["noticed: book went back in time"] += "went back in time" in why
            case "cycle.held":
                found["cycle held"] += 1
                found["answer contradicts"] += line.data.get("reason") == "contradiction"
                found["edited row held"] += line.data.get("reason") == "facts_changed"
            case "subscription.corrected":
                found["edited row put right"] += 1
            case "subscription.suspended":
                found[f"suspended: {str(line.data.get('reason')).replace('_', ' ')}"] += 1
            case "subscription.mended":
                found["chain mended"] += 1
            case "clock.skewed":
                found["clock found wrong"] += 1
            case "clock.not_compared":
                found["clock not compared for hours"] += 1
    for month in evidence.months:
        if month.status in ("missed", "skipped"):
            found[f"{month.status}: {month.reason}"] += 1
        elif month.reason:
            found[month.reason.replace("_", " ")] += 1
    for row in evidence.attempts:
        late = row["sent_at"] is not None and row["sent_at"] - row["planned_at"]
        found["caught up after a day"] += bool(late and late > timedelta(days=1))
    found["401 in flight"] = sum(
        one.kind == "again" and one.outcome == "turned_away"
        for one in world.sandbox.ledger.requests
    )
    found["process killed"] = sum(line.what == "killed" for line in world.lines)
    found["process frozen"] = sum(line.what == "stopped" for line in world.lines)
    forgotten = {one.order for one in evidence.asked if one.forgotten}
    found["paid in a time that the book forgot"] = sum(
        month.order in forgotten for month in evidence.months
    )
    found["record given up"] = world.tallies["charge:unrecorded"]
    for name in ("counted", "inquired", "unreadable"):
        found[f"webhook: {name}"] = world.tallies[f"webhook:{name}"]
    nobodys = ("stranger", "not_found")
    found["webhook: stranger or nobody's"] = sum(world.tallies[f"webhook:{n}"] for n in nobodys)
    found["reconciled whole"] = len(evidence.back.whole)
    found["reconciled: applied"] = world.tallies["reconcile:applied"]
    return +(found + _given_back(evidence))


def _given_back(evidence: Evidence) -> Counter[str]:
    found: Counter[str] = Counter()
    last: dict[str, str] = {}
    for line in evidence.told:
        found["reconciled: told of"] += line.kind == "reconcile.difference"
        if not line.kind.startswith("refund."):
            continue
        imp_uid = str(line.data.get("imp_uid"))
        before, last[imp_uid] = last.get(imp_uid), line.kind
        match before, line.kind:
            case None, "refund.done":
                found["given back elsewhere, followed"] += 1
            case "refund.unknown", "refund.done":
                found["given back by us"] += 1
                found["refund unknown, then done"] += 1
            case _, "refund.done":
                found["given back by us"] += 1
            case "refund.unknown", "refund.not_sent":
                last[imp_uid] = "proved not given back"
            case "proved not given back", "refund.sending":
                found["refund proved not given back, sent again"] += 1
            case _, "refund.refused":
                found["refund refused"] += 1
    return found
