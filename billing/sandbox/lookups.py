"""Look-ups: payments by id, order, state and billing key (docs/gateway.md §4, §5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from billing.sandbox.gateway import Sandbox
from billing.sandbox.model import Payment, Schedule, Status
from billing.sandbox.reply import Reply, bad_request, not_found, success
from billing.sandbox.view import balance_row, key_row, payment_row, schedule_row

STATES = ("all", "ready", "paid", "cancelled", "failed")
MOST_ROWS = 1000
DEFAULT_ROWS = 20
MOST_IDS = 100
LONGEST_SPAN = 90 * 86_400
# Three months of 31 days: "up to 3 months" for schedules.
LONGEST_SCHEDULE_SPAN = 93 * 86_400
SCHEDULE_STATES = ("scheduled", "executed", "revoked")

# By which moment a payment is searched: its own state decides, also among all.
_BASIS = {
    Status.READY: "started_at",
    Status.PAID: "paid_at",
    Status.CANCELLED: "cancelled_at",
    Status.FAILED: "failed_at",
}
_SORTS = ("started", "paid", "updated")


class BadQuery(Exception):
    """A query that cannot be answered: HTTP 400 with this text."""


@dataclass(frozen=True, slots=True)
class Query:
    """The query parameters of a look-up, checked. Raises `BadQuery`."""

    parameters: Mapping[str, str]

    @property
    def include_sandbox(self) -> bool:
        return self.parameters.get("include_sandbox", "").lower() == "true"

    def whole(self, name: str, default: int | None, low: int, high: int) -> int:
        """A number of the query; `default` None says that it must be given."""
        text = self.parameters.get(name, "")
        if text == "" and default is not None:
            return default
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise BadQuery(f"{name} must be a whole number from {low} to {high}")
        return int(text)

    def span(self, now: float, longest: int) -> tuple[int, int]:
        until = self.whole("to", int(now), 0, 1 << 40)
        since = self.whole("from", until - longest, 0, 1 << 40)
        if not 0 <= until - since <= longest:
            raise BadQuery(f"from and to must be at most {longest // 86_400} days apart")
        return since, until

    def sorted(self, rows: Sequence[Payment]) -> list[Payment]:
        """Newest started first unless `sorting` says otherwise."""
        sorting = self.parameters.get("sorting") or "-started"
        name = sorting.removeprefix("-")
        if name not in _SORTS:
            raise BadQuery("sorting must be one of [-]started, [-]paid, [-]updated")
        keys: dict[str, Any] = {
            "started": lambda one: (one.started_at, one.number),
            "paid": lambda one: (one.paid_at, one.number),
            "updated": lambda one: (
                max(one.started_at, one.paid_at, one.failed_at, one.cancelled_at),
                one.number,
            ),
        }
        return sorted(rows, key=keys[name], reverse=sorting.startswith("-"))

    def page(
        self, rows: Sequence[Any], limit: int | None = None
    ) -> tuple[Sequence[Any], dict[str, object]]:
        """One page of rows, and the list around it; `limit` where the query may not choose it.
        Raises `BadQuery` for a page past the end."""
        number = self.whole("page", 1, 1, 1 << 31)
        limit = limit or self.whole("limit", DEFAULT_ROWS, 1, MOST_ROWS)
        begins = (number - 1) * limit
        if number > 1 and begins >= len(rows):
            raise BadQuery("there is no such page")
        more = begins + limit < len(rows)
        around: dict[str, object] = {
            "total": len(rows),
            "previous": number - 1,
            "next": number + 1 if more else 0,
        }
        return rows[begins : begins + limit], around


def _listed(rows: Sequence[Payment], query: Query, limit: int | None = None) -> Reply:
    some, around = query.page(query.sorted(rows), limit)
    return success({**around, "list": [payment_row(one) for one in some]})


def _shown(sandbox: Sandbox, rows: Sequence[Payment], query: Query) -> list[Payment]:
    """What look-ups may see: neither what lags nor, unless asked for, test payments."""
    now, tests = sandbox.clock.unix(), query.include_sandbox
    return [one for one in rows if one.visible_at <= now and (tests or not one.sandbox)]


def _state(text: str) -> str:
    if text not in ("", *STATES):
        raise BadQuery("payment_status must be one of " + ", ".join(STATES))
    return text or "all"


def _in_state(rows: Sequence[Payment], state: str) -> list[Payment]:
    return [one for one in rows if state in ("all", one.status)]


def find_all(sandbox: Sandbox, merchant_uid: str, state: str, query: Query) -> Reply:
    """Every payment of an order."""
    rows = _in_state(_shown(sandbox, sandbox.ledger.of_order(merchant_uid), query), _state(state))
    return _listed(rows, query) if rows else not_found()


def find(sandbox: Sandbox, merchant_uid: str, state: str, query: Query) -> Reply:
    """One payment of an order, the newest: a later failed one hides an earlier paid one."""
    rows = _in_state(_shown(sandbox, sandbox.ledger.of_order(merchant_uid), query), _state(state))
    return success(payment_row(query.sorted(rows)[0])) if rows else not_found()


def payment(sandbox: Sandbox, imp_uid: str, query: Query) -> Reply:
    """One payment by the gateway's own id."""
    found = _one(sandbox, imp_uid, query)
    return not_found() if found is None else success(payment_row(found))


def balance(sandbox: Sandbox, imp_uid: str, query: Query) -> Reply:
    """What is left to cancel."""
    found = _one(sandbox, imp_uid, query)
    return not_found() if found is None else success(balance_row(found))


def _one(sandbox: Sandbox, imp_uid: str, query: Query) -> Payment | None:
    found = sandbox.ledger.by_imp_uid(imp_uid)
    shown = [] if found is None else _shown(sandbox, [found], query)
    return shown[0] if shown else None


def by_ids(
    sandbox: Sandbox, imp_uids: Sequence[str], merchant_uids: Sequence[str], query: Query
) -> Reply:
    """Up to 100 payments at once: 200 for all of them, 207 for some, 404 for none."""
    if not 0 < len(imp_uids) + len(merchant_uids) <= MOST_IDS:
        return bad_request(f"1 to {MOST_IDS} ids must be given")
    by_imp = [sandbox.ledger.by_imp_uid(uid) for uid in imp_uids]
    groups: list[Sequence[Payment]] = [[] if one is None else [one] for one in by_imp]
    groups += [sandbox.ledger.of_order(uid) for uid in merchant_uids]
    found = [_shown(sandbox, group, query) for group in groups]
    rows = {one.number: one for group in found for one in group}
    if not rows:
        return not_found()
    return success([payment_row(one) for one in rows.values()], 200 if all(found) else 207)


def by_state(sandbox: Sandbox, state: str, query: Query) -> Reply:
    """All payments of a state within at most 90 days, the last 90 unless said otherwise."""
    state = _state(state)
    since, until = query.span(sandbox.clock.unix(), LONGEST_SPAN)
    rows = [
        one
        for one in _in_state(sandbox.ledger.payments, state)
        if since <= getattr(one, _BASIS[one.status]) <= until
    ]
    return _listed(_shown(sandbox, rows, query), query)


def of_customer(sandbox: Sandbox, customer_uid: str, query: Query) -> Reply:
    """All payments of a billing key, 20 to a page: this list takes no `limit`."""
    rows = sandbox.ledger.of_customer(customer_uid)
    if not rows and sandbox.ledger.key(customer_uid) is None:
        return not_found()
    return _listed(_shown(sandbox, rows, query), query, DEFAULT_ROWS)


def customer(sandbox: Sandbox, customer_uid: str) -> Reply:
    """One billing key."""
    key = sandbox.ledger.key(customer_uid)
    return _no_key(customer_uid) if key is None else success(key_row(key))


def customers(sandbox: Sandbox, customer_uids: Sequence[str]) -> Reply:
    """Several billing keys: 200 for all of them, 207 for some, 404 for none."""
    if not 0 < len(customer_uids) <= MOST_IDS:
        return bad_request(f"1 to {MOST_IDS} ids must be given")
    keys = [key for uid in customer_uids if (key := sandbox.ledger.key(uid)) is not None]
    if not keys:
        return not_found()
    return success([key_row(key) for key in keys], 200 if len(keys) == len(customer_uids) else 207)


def schedules(sandbox: Sandbox, customer_uid: str, query: Query) -> Reply:
    """What the gateway's own scheduler holds for a key, latest first: from one moment until before
    another, at most 3 months later."""
    since, until = (query.whole(name, None, 0, 1 << 40) for name in ("from", "to"))
    wanted = query.parameters.get("schedule-status", "")
    if not 0 <= until - since <= LONGEST_SCHEDULE_SPAN:
        raise BadQuery("from and to must be at most 3 months apart")
    if wanted not in ("", *SCHEDULE_STATES):
        raise BadQuery("schedule-status must be one of " + ", ".join(SCHEDULE_STATES))
    rows = [
        one
        for one in sandbox.ledger.schedules.values()
        if one.customer_uid == customer_uid
        and since <= one.schedule_at < until
        and wanted in ("", one.status)
    ]
    rows.sort(key=lambda one: one.schedule_at, reverse=True)
    some, around = query.page(rows, DEFAULT_ROWS)
    return success({**around, "list": [_schedule(sandbox, one) for one in some]})


def scheduled(sandbox: Sandbox, merchant_uid: str) -> Reply:
    """One payment that the gateway's own scheduler makes or made."""
    found = sandbox.ledger.schedules.get(merchant_uid)
    return not_found() if found is None else success(_schedule(sandbox, found))


def _schedule(sandbox: Sandbox, schedule: Schedule) -> dict[str, object]:
    return schedule_row(schedule, sandbox.ledger.by_imp_uid(schedule.imp_uid))


def _no_key(customer_uid: str) -> Reply:
    return not_found(f"요청하신 customer_uid({customer_uid})로 등록된 정보를 찾을 수 없습니다.")
