"""The brake: declines that pile up may be our own fault, and then nobody else should be asked.

Wrong keys or a contract that is off make the gateway say "unknown customer" to everyone, one after
the other. So the newest verdicts are kept, a letter each, and a run of suspicious ones stops all
charging until a person has looked (reliability G11).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from billing.domain.declines import DeclineClass

# As many as the book keeps; the share below is of these.
KEPT = 50
# Declines that name our own configuration, since the last approval.
OPERATOR_RUN = 3
# Declines that would end subscriptions, since the last approval.
SUSPICIOUS_RUN = 5
# Of the newest 50; in an ordinary month a few of a hundred numbers have moved.
SUSPICIOUS_SHARE = 0.2
# So few are believed even where nothing was ever approved: a merchant may have two customers.
BELIEVED_ALONE = 2


class Verdict(StrEnum):
    """What one answer says about us, rather than about the customer."""

    APPROVED = "a"
    ORDINARY = "d"
    SUSPICIOUS = "s"
    OPERATOR = "o"
    # A text that is in no table: harms nobody, and many of them are no accident.
    UNREAD = "u"


_SUSPICIOUS_CLASSES = frozenset(
    {
        DeclineClass.REGISTER_ANEW,
        DeclineClass.CHAIN_BROKEN,
        DeclineClass.MISMATCH,
    }
)
_AGAINST_US = frozenset({Verdict.SUSPICIOUS, Verdict.OPERATOR})


def verdict_of(decline_class: DeclineClass, *, first: bool) -> Verdict:
    """What a decline says about us; `first` when it is the first attempt of its month.

    A text that nobody can read counts once: its retries are the same customer again.
    """
    if decline_class is DeclineClass.OPERATOR:
        return Verdict.OPERATOR
    if decline_class is DeclineClass.UNRECOGNIZED:
        return Verdict.UNREAD if first else Verdict.ORDINARY
    return Verdict.SUSPICIOUS if decline_class in _SUSPICIOUS_CLASSES else Verdict.ORDINARY


def with_new(verdicts: str, new: Iterable[Verdict]) -> str:
    """The newest verdicts, the last one last."""
    return (verdicts + "".join(new))[-KEPT:]


def why_brake(verdicts: str) -> str | None:
    """Why all charging must stop, or None."""
    run = verdicts.rpartition(Verdict.APPROVED)[2]
    if run.count(Verdict.OPERATOR) >= OPERATOR_RUN:
        return f"{OPERATOR_RUN} answers without an approval point at our own configuration"
    if sum(run.count(letter) for letter in _AGAINST_US) >= SUSPICIOUS_RUN:
        return f"{SUSPICIOUS_RUN} customers without an approval are unknown to the gateway"
    odd = sum(verdicts.count(letter) for letter in _AGAINST_US | {Verdict.UNREAD})
    if len(verdicts) == KEPT and odd >= SUSPICIOUS_SHARE * KEPT:
        return f"{odd} of the last {KEPT} charges were declined as by our own fault"
    return None


def are_believed(verdicts: str) -> bool:
    """Whether a decline that ends a subscription may be believed: somebody else was approved, or
    there are so few that no pattern can be seen."""
    if Verdict.APPROVED in verdicts:
        return True
    return sum(verdicts.count(letter) for letter in _AGAINST_US) <= BELIEVED_ALONE
