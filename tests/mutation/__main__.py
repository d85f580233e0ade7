"""`python -m tests.mutation FILE… [--number N]`: which small mistakes would no test notice?

Exit 1 when a mutant survives for which tests/mutation/accepted.toml gives no reason.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mutation.runner import Result, Runner

ROOT = Path(__file__).parents[2]
ACCEPTED = Path(__file__).with_name("accepted.toml")
# The tests that run a module; of these each mutant gets those that reach its line.
ENGINE = [
    "tests/integration/test_proof.py",
    "tests/integration/test_inquire.py",
    "tests/integration/test_races.py",
    "tests/integration/test_engine.py",
    "tests/integration/test_change_status.py",
    "tests/integration/test_fence.py",
    "tests/integration/test_second_charger.py",
    "tests/integration/test_refund.py",
    "tests/integration/test_reconcile.py",
    "tests/integration/test_health.py",
    "tests/integration/test_schema_refuses.py",
    "tests/integration/test_invariants.py",
    "tests/integration/test_enrol.py",
    "tests/integration/test_explain.py",
    "tests/integration/test_forecast.py",
    "tests/integration/test_proofs.py",
    "tests/integration/test_record.py",
    "tests/integration/test_let_go.py",
    "tests/integration/test_clock_guard.py",
    "tests/integration/test_desk.py",
    "tests/integration/test_opening.py",
    "tests/integration/test_plain_approvals.py",
    "tests/integration/test_reconciled.py",
    "tests/integration/test_forget.py",
]
RECORD = [
    "tests/integration/test_record.py",
    "tests/integration/test_proof.py",
    "tests/integration/test_plain_approvals.py",
    "tests/integration/test_reconcile.py",
]
WIRE = ["tests/integration/portone/test_portone_wire.py"]
ORDERS = ["tests/unit/services/test_orders.py", "tests/integration/web/test_checkout.py"]
FOLLOWED = [
    "tests/integration/test_closing.py",
    "tests/integration/test_odd_rows.py",
    "tests/integration/test_change_status.py",
    "tests/integration/test_let_go.py",
    "tests/integration/test_found_later.py",
    "tests/integration/test_clock_guard.py",
    "tests/integration/test_fence.py",
    "tests/integration/test_engine.py",
]
TESTS = {
    "billing/domain/enrolment.py": [
        "tests/unit/domain/test_enrolment.py",
        "tests/unit/services",
        "tests/integration/test_enrol.py",
    ],
    "billing/domain/refund.py": [
        "tests/unit/domain/test_refund.py",
        "tests/integration/test_refund.py",
    ],
    "billing/domain/seal.py": [
        "tests/unit/domain/test_seal.py",
        "tests/integration/test_seals.py",
        "tests/integration/test_import.py",
    ],
    "billing/domain": ["tests/unit/domain"],
    "billing/holding_back.py": ["tests/unit/test_holding_back.py"],
    "billing/services/record.py": RECORD,
    "billing/services/answer.py": [*RECORD, "tests/unit/test_texts.py"],
    "billing/services/recorder.py": [*RECORD, "tests/integration/test_clock_guard.py"],
    "billing/store/settled.py": RECORD,
    "billing/store/seals.py": [
        "tests/integration/test_seals.py",
        "tests/integration/test_archive_rows.py",
    ],
    "billing/store/archives.py": ["tests/integration/test_archive_rows.py"],
    "billing/store/health.py": ["tests/integration/test_health.py"],
    "billing/store/subscriptions.py": ["tests/integration/test_staged_rows.py"],
    "billing/store/webhooks.py": ["tests/integration/test_webhook_rows.py"],
    "billing/store/gauges.py": ["tests/integration/test_gauge_rows.py"],
    "billing/store/installation.py": ["tests/integration/test_fence_rows.py"],
    "billing/store/report.py": ["tests/integration/test_report_rows.py"],
    "billing/store/ledger.py": ["tests/integration/test_ledger.py"],
    "billing/store/opening.py": [
        "tests/integration/test_opening.py",
        "tests/integration/test_closing.py",
    ],
    "billing/store/refunds.py": ["tests/integration/test_refund_rows.py"],
    "billing/store/attempts.py": ["tests/integration/test_attempts.py"],
    "billing/services/invariants.py": [
        "tests/integration/test_invariants.py",
        "tests/integration/test_invariant_rows.py",
    ],
    "billing/services/inquire.py": ["tests/integration/test_inquire.py"],
    "billing/services/asking.py": ["tests/integration/test_inquire.py"],
    "billing/services/note_gateway.py": ["tests/integration/test_record.py"],
    "billing/services/charge.py": [
        "tests/integration/test_charging_a_batch.py",
        "tests/integration/test_fence.py",
        "tests/integration/test_clock_guard.py",
        "tests/integration/test_engine.py",
        "tests/integration/test_second_charger.py",
    ],
    "billing/services/confirm.py": ["tests/integration/test_confirm.py"],
    "billing/services/close_cycles.py": FOLLOWED,
    "billing/services/open_cycles.py": [
        "tests/integration/test_opening.py",
        "tests/integration/test_statements.py",
        "tests/integration/test_clock_guard.py",
        "tests/integration/test_engine.py",
        "tests/integration/test_change_status.py",
    ],
    "billing/services/coming.py": [
        "tests/unit/services/test_coming.py",
        "tests/integration/test_opening.py",
        "tests/integration/test_settings_change.py",
        "tests/integration/test_forecast.py",
        "tests/integration/test_change_status.py",
    ],
    "billing/services/fence.py": [
        "tests/integration/test_fence.py",
        "tests/integration/test_refund_proved.py",
    ],
    "billing/services/hold.py": [
        "tests/integration/test_fence.py",
        "tests/integration/test_found_later.py",
        "tests/integration/test_confirm.py",
    ],
    "billing/services/dispatch.py": [
        "tests/integration/test_dispatch.py",
        "tests/integration/test_fence.py",
        "tests/integration/test_engine.py",
        "tests/integration/test_races.py",
    ],
    "billing/services/desk.py": [
        "tests/integration/test_desk.py",
        "tests/integration/test_charging_a_batch.py",
        "tests/integration/test_inquire.py",
    ],
    "billing/services/enrol.py": ["tests/integration/test_enrol.py"],
    "billing/services/enrol_payment.py": [
        "tests/integration/test_enrol_payment.py",
        "tests/integration/test_clock_guard.py",
    ],
    "billing/services/look_at_webhooks.py": [
        "tests/integration/test_webhooks.py",
        "tests/integration/test_clock_guard.py",
    ],
    "billing/services/confirm_difference.py": ["tests/integration/test_reconcile.py"],
    "billing/services/questions.py": ["tests/unit/services/test_questions.py"],
    "billing/services/change_status.py": [
        "tests/integration/test_change_status.py",
        "tests/integration/test_let_go.py",
        "tests/integration/test_fence.py",
        "tests/integration/test_clock_guard.py",
    ],
    "billing/services/reconciled.py": ["tests/integration/test_reconciled.py"],
    "billing/services/reconcile.py": [
        "tests/unit/services/test_reconcile_report.py",
        "tests/integration/test_reconcile.py",
        "tests/integration/test_second_charger.py",
        "tests/integration/test_proofs.py",
    ],
    "billing/services/try_again.py": ["tests/integration/test_try_again.py"],
    "billing/services/let_go.py": ["tests/integration/test_let_go.py"],
    "billing/services/correct.py": ["tests/integration/test_correct.py"],
    "billing/services/follow_facts.py": ["tests/integration/test_correct.py"],
    "billing/services/initial_payment.py": ["tests/integration/test_correct.py"],
    "billing/services/finish_order.py": ORDERS,
    "billing/services/pick_up_order.py": ORDERS,
    "billing/services/bring_in.py": [
        "tests/integration/test_enrol_payment.py",
        "tests/integration/test_clock_guard.py",
        "tests/integration/test_import.py",
    ],
    "billing/services/alone.py": ["tests/integration/test_alone.py"],
    "billing/services/beside.py": ["tests/unit/services/test_beside.py"],
    "billing/services/forget.py": ["tests/integration/test_forget.py"],
    "billing/services/prune.py": ["tests/unit/services/test_clearing_up.py"],
    "billing/services/seal_events.py": ["tests/integration/test_seals.py"],
    "billing/services/csv_lines.py": ["tests/unit/services/test_import_rows.py"],
    "billing/services/notify.py": ["tests/integration/test_notify_rounds.py"],
    "billing/store/corrections.py": ["tests/integration/test_correct.py"],
    "billing/store/coming.py": ["tests/integration/test_coming_rows.py"],
    "billing/store/grants.py": ["tests/integration/test_run_role.py"],
    "billing/store/notices.py": ["tests/integration/test_notice_rows.py"],
    "billing/store/session.py": [
        "tests/integration/test_session.py",
        "tests/integration/test_copy_errors.py",
    ],
    "billing/store/figures.py": ["tests/integration/test_figure_rows.py"],
    "billing/store/events.py": ["tests/integration/test_event_rows.py"],
    "billing/store/views.py": ["tests/integration/test_view_rows.py"],
    "billing/store/receiver.py": ["tests/integration/test_receiver_rows.py"],
    "billing/store/waiting.py": ["tests/integration/test_waiting.py"],
    "billing/store/heartbeats.py": ["tests/integration/test_heartbeat_rows.py"],
    "billing/domain/correction.py": ["tests/unit/domain/test_correction.py"],
    "billing/services/clock_guard.py": [
        "tests/integration/test_clock_alone.py",
        "tests/integration/test_clock_guard.py",
    ],
    "billing/services/prove.py": ["tests/integration/test_proof_days.py"],
    "billing/services/archive_events.py": ["tests/integration/test_archive_files.py"],
    "billing/services/import_subscriptions.py": ["tests/integration/test_import.py"],
    "billing/services/refund.py": [
        "tests/integration/test_refund.py",
        "tests/integration/test_refund_proposed.py",
        "tests/integration/test_refund_proved.py",
        "tests/integration/test_found_later.py",
        "tests/integration/test_odd_rows.py",
    ],
    "billing/services/take_back.py": [
        "tests/integration/test_refund.py",
        "tests/integration/test_refund_proved.py",
        "tests/integration/test_found_later.py",
        "tests/integration/test_settle_difference.py",
    ],
    "billing/services/settle_difference.py": [
        "tests/integration/test_settle_difference.py",
        "tests/integration/test_found_later.py",
        "tests/integration/test_reconcile.py",
    ],
    # What tests of its own hold is tried with those alone: seconds, where each survivor of the
    # others costs a minute of real sockets.
    "billing/portone/answer.py": ["tests/unit/portone/test_answer.py", *WIRE],
    "billing/portone/cancellation.py": ["tests/unit/portone/test_cancel_and_prepare.py"],
    "billing/portone/client.py": [
        "tests/unit/portone/test_client.py",
        "tests/unit/portone/test_client_limits.py",
    ],
    "billing/portone/exchange.py": [
        "tests/unit/portone/test_exchange.py",
        "tests/unit/portone/test_exchange_addresses.py",
    ],
    "billing/portone/fields.py": ["tests/unit/portone/test_fields.py"],
    "billing/portone/lookups.py": ["tests/unit/portone/test_lookups.py"],
    "billing/portone/preparation.py": ["tests/unit/portone/test_cancel_and_prepare.py"],
    "billing/portone/rows.py": ["tests/unit/portone/test_fields.py"],
    "billing/portone/spans.py": [
        "tests/unit/portone/test_spans.py",
        "tests/integration/portone/test_portone_spans.py",
    ],
    "billing/portone/token.py": ["tests/unit/portone/test_tokens.py"],
    "billing/portone/transport.py": [
        "tests/unit/portone/test_transport.py",
        "tests/unit/portone/test_exchange_addresses.py",
        "tests/integration/portone/test_portone_lookups.py",
        *WIRE,
    ],
    "billing/portone/webhook.py": ["tests/unit/portone/test_webhook.py"],
    "billing/portone/wire.py": ["tests/unit/portone", *WIRE],
    "billing/portone": [
        "tests/unit/portone",
        "tests/integration/portone",
        "tests/integration/test_sandbox_road.py",
    ],
    "billing/services": ENGINE,
    "billing/store": ENGINE,
}


def main(files: Sequence[str], numbers: Sequence[int], tests: Sequence[str], longest: float) -> int:
    """Try modules with the tests that know any of them, in one pytest session."""
    reasons = accepted()
    ok: list[bool] = []
    runner = Runner(
        ROOT,
        files,
        wanted=lambda at: not numbers or at in numbers,
        told=lambda result: told(result, reasons.get(result.file, {})),
        finished=lambda file, results: ok.append(
            summed_up(file, results, reasons.get(file, {}), whole=not numbers)
        ),
        longest=longest,
    )
    ended = pytest.main(
        ["-q", "-p", "no:cacheprovider", "-m", "not long", "--timeout=60", *tests],
        plugins=[runner],
    )
    for test in runner.left_out:
        print(f"fails without a mutant, so not used: {test}")
    return 0 if len(ok) == len(files) and all(ok) else int(ended) or 1


def accepted() -> dict[str, dict[str, str]]:
    """By file: `scope: before -> after`, and why nothing notices."""
    if not ACCEPTED.exists():
        return {}
    return tomllib.loads(ACCEPTED.read_text(encoding="utf-8"))


def key(result: Result) -> str:
    return f"{result.mutant.scope}: {result.mutant.change}"


def lives(result: Result) -> bool:
    return result.became in ("survived", "unreached")


def told(result: Result, reasons: dict[str, str]) -> None:
    if not lives(result) or key(result) in reasons:
        print(".", end="", flush=True)
    else:
        where = f"{result.file} {result.number} line {result.mutant.line}"
        print(f"\n{where} {result.became} ({result.tests} tests)\n  {key(result)}", flush=True)


def summed_up(file: str, results: list[Result], reasons: dict[str, str], *, whole: bool) -> bool:
    """One line of the table of docs/mutants.md; false when a survivor has no reason."""
    became = Counter(result.became for result in results)
    alive = [key(result) for result in results if lives(result)]
    bare = [one for one in alive if one not in reasons]
    print(
        "\n| file | mutants | killed | survived with a reason | without | not tried |\n"
        f"| {file} | {len(results) - became['not made']} | {became['killed'] + became['endless']}"
        f" | {len(alive) - len(bare)} | {len(bare)} | {became['not made']} |",
        flush=True,
    )
    for one in reasons.keys() - {key(result) for result in results} if whole else ():
        print(f"no such mutant any more: {one}")
    if results and became["not made"] == len(results):
        print("none of them could be made: that proves nothing")
        return False
    return not bare


def tests_of(file: str) -> list[str]:
    return next(tests for folder, tests in TESTS.items() if file.startswith(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--number", type=int, nargs="+", default=[], help="only these mutants")
    parser.add_argument("--tests", nargs="+", help="instead of those that the module is known by")
    parser.add_argument("--longest", type=float, default=3.0, help="leave longer tests out")
    given = parser.parse_args()
    tests = given.tests or [test for file in given.files for test in tests_of(file)]
    sys.exit(main(given.files, given.number, list(dict.fromkeys(tests)), given.longest))
