"""The edges of the command line: wrong calls, what people see, a reader that leaves, Ctrl-C.

Most run in this process, since a process of its own costs seconds; `test_cli.py` has the others.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rich.cells import cell_len
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from billing.cli import main
from billing.domain.errors import InvalidSetting
from billing.domain.policy import BillingPolicy
from billing.embedded import Servers
from billing.services import change_status
from billing.settings import Settings
from billing.store.session import Book
from billing.store.trouble import servers, why
from tests.builders import HEADER, a_foreign_gateway, a_row, enrolled, execute, query
from tests.called import Call, Done
from tests.conftest import MovedClock

pytestmark = pytest.mark.timeout(300)
# No window of it is open, whatever day it is: in a window's last half hour nothing is due.
PAID = (datetime.now(UTC) - timedelta(days=40)).isoformat(timespec="seconds")


def added(call: Call, uid: str, order_name: str = "plan", amount: str = "9900") -> Done:
    return call(
        *("subscription", "add", "--customer-uid", uid, "--amount", amount),
        *("--order-name", order_name, "--initial-paid-at", PAID, "--json"),
    )


# As a terminal in CP949 sends Korean, and Python keeps the bytes.
NO_TEXT = "점검".encode("cp949").decode("utf-8", "surrogateescape")
WRONG_CALLS = [
    (["cycles", "--status", "nonsense"], "--status", "'missed'"),
    (["subscription", "list", "--status", "nonsense"], "--status", "'suspended'"),
    (["cycles", "--limit", "0"], "--limit", "1"),
    (["due", "--at", "2026-11-20T10:00:00"], "--at", "+09:00"),
    (["due", "--days", "367"], "--days", "366"),
    (["windows", "--initial-paid-on", "2024-02-30"], "--initial-paid-on", "2024-02-30"),
    (["windows", "--initial-paid-on", "9999-12-01"], "cycle", "9999"),
    (["report", "--month", "9999-12"], "date", "9999"),
    (["due", "--at", "9999-12-31T00:00:00+09:00"], "date", "9999"),
    (["why", "a", "--cycle", "0"], "--cycle", "1"),
    (["why", "a", "--cycle", "99999999999999999999"], "--cycle", "120000"),
    (["subscription", "import", "/nowhere.csv"], "file", "does not exist"),
]


@pytest.mark.parametrize(
    ("words", "field", "said"), WRONG_CALLS, ids=[" ".join(w) for w, *_ in WRONG_CALLS]
)
def test_a_wrong_call_exits_2_and_names_the_field(
    call: Call, words: list[str], field: str, said: str
) -> None:
    done = call(*words, "--json")
    assert done.code == 2
    told = done.document()
    assert (told["field"], said in told["error"]) == (field, True)
    assert said in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err


def test_a_wrong_amount_is_a_wrong_call_with_a_remedy(call: Call) -> None:
    done = added(call, "a", amount="９９００")
    told = done.document()
    assert (done.code, told["field"], told["value"]) == (2, "amount", "９９００")
    assert told["remedy"]


@pytest.mark.parametrize(
    "words",
    [["subscription", "cancel"], ["cycles", "--customer-uid"]],
    ids=" ".join,
)
def test_an_argument_that_is_no_text_is_a_wrong_call(call: Call, words: list[str]) -> None:
    done = call(*words, NO_TEXT, "--json")
    assert done.code == 2
    assert "UTF-8" in done.document()["error"]
    assert "Traceback" not in done.err


def test_a_hold_stops_whatever_terminal_it_is_typed_in(call: Call) -> None:
    done = call("hold", "--why", f"pg {NO_TEXT}", "--json")
    assert done.code == 0
    assert done.document()["hold"] == call("status", "--json").document()["hold"] == "pg"


@pytest.mark.parametrize(
    "words", [["subscription", "show"], ["subscription", "pause"], ["why"]], ids=" ".join
)
def test_a_failure_is_one_document_too(call: Call, words: list[str]) -> None:
    done = call(*words, "nobody", "--json")
    assert done.code == 1
    assert done.document() == {"error": "no subscription has the customer_uid 'nobody'"}
    assert done.err == "maewol: no subscription has the customer_uid 'nobody'\n"


def test_it_says_which_one_it_is(call: Call) -> None:
    """The one that is installed, and without looking for a book."""
    done = call("--version")
    assert (done.code, done.out) == (0, f"maewol {metadata.version('maewol')}\n")


def test_no_schema_says_what_to_run(call: Call, book: Book) -> None:
    execute(book, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    done = call("cycles", "--json")
    assert done.code == 1
    assert "maewol db upgrade" in done.document()["error"]


def test_every_document_stands_alone_on_stdout(call: Call, tmp_path: Path) -> None:
    """Each command that prints data, with what it says beside it on stderr."""
    file = tmp_path / "subscribers.csv"
    file.write_text(f"{HEADER}\ncustomer-1,9900,plan,{PAID},,\n", encoding="utf-8")
    for words in [
        ["db", "upgrade"],
        ["subscription", "import", str(file)],
        ["subscription", "list"],
        ["subscription", "show", "customer-1"],
        ["subscription", "pause", "customer-1"],
        ["subscription", "resume", "customer-1"],
        ["why", "customer-1"],
        ["due", "--days", "60"],
        ["cycles"],
        ["status"],
        ["invariants"],
        ["hold"],
        ["release"],
        ["subscription", "cancel", "customer-1"],
    ]:
        done = call(*words, "--json")
        assert done.code == 0, done.err
        assert done.document() is not None
    assert "final" in done.err
    assert "되돌릴 수 없습니다" in done.err


def test_tables_keep_their_columns_with_wide_letters(call: Call) -> None:
    added(call, "a", order_name="월정액 이용권 프리미엄")
    added(call, "b", order_name="[bold]plan[/bold]")
    done = call("subscription", "list")
    lines = done.out.splitlines()
    assert len({cell_len(line) for line in lines}) == 1, "Korean letters are two cells wide"
    assert "월정액 이용권 프리미엄" in done.out
    assert "[bold]plan[/bold]" in done.out, "outside text is never markup"
    assert "9,900" in done.out


def test_due_adds_up(call: Call) -> None:
    added(call, "a")
    added(call, "b", amount="5100")
    found = call("due", "--days", "90", "--json").document()
    assert {one["amount"] for one in found} == {9900, 5100}
    won = sum(one["amount"] for one in found)
    assert f"{len(found)} charges, {won:,} won\n" in call("due", "--days", "90").out
    cut = call("due", "--days", "90", "--limit", "1")
    assert cut.out.endswith("1 charges, 9,900 won\n")
    assert "The first 1 only" in cut.err


def test_due_says_that_charging_is_held(call: Call) -> None:
    added(call, "a")
    assert call("due", "--days", "60").err == ""
    call("hold", "--why", "looking into it")
    done = call("due", "--days", "60", "--json")
    assert len(done.document()) >= 1
    assert "held (looking into it)" in done.err
    assert "maewol release" in done.err


@pytest.mark.parametrize("words", [["subscription", "list"], ["cycles"], ["due"]], ids=" ".join)
def test_a_list_is_whole_unless_it_is_cut_and_that_is_said(
    call: Call, book: Book, policy: BillingPolicy, clock: MovedClock, words: list[str]
) -> None:
    """More than the pages and tables that lists are made of."""
    clock.move_to(datetime.now(UTC))
    assert enrolled(book, policy, *(a_row(number, PAID) for number in range(2050))).added == 2050
    if words == ["cycles"]:
        new_cycle = (
            "INSERT INTO cycles (subscription_id, number, month, due_on, opens_on, closes_on,"
            " band_opens_at, last_start_at, closes_at, amount, status, opened_at)"
            " SELECT id, 1, '2026-12-01', '2026-12-01', '2026-12-01', '2026-12-06', now(), now(),"
            " now() + interval '1 day', amount, 'open', now() FROM subscriptions"
        )
        execute(book, new_cycle)
    days = ["--days", "31"] if words == ["due"] else []
    whole = call(*words, *days, "--json")
    rows = whole.document()
    assert len({one["customer_uid"] for one in rows}) == 2050
    assert len({(one["customer_uid"], one.get("cycle")) for one in rows}) == len(rows)
    assert whole.err == ""
    cut = call(*words, *days, "--limit", "1001", "--json")
    assert cut.document() == rows[:1001]
    assert "The first 1,001 only" in cut.err
    assert "처음 1,001건만" in cut.err
    exact = call(*words, *days, "--limit", str(len(rows)), "--json")
    assert (exact.out, exact.err) == (whole.out, "")
    assert call(*words, *days, "--limit", str(10**30), "--json").out == whole.out


def test_a_list_without_rows(call: Call, book: Book) -> None:
    assert call("cycles", "--json").out == "[]\n"
    assert call("cycles").out == "nothing\n"
    assert call("due").out == "nothing\n0 charges, 0 won\n"


def test_every_fact_is_shown_and_those_that_are_broken(call: Call, book: Book) -> None:
    added(call, "a")
    assert call("invariants").out.count("ok 정상") == len(call("invariants", "--json").document())
    execute(book, "UPDATE subscriptions SET status = 'paused'")
    broken = call("invariants", "--json")
    assert broken.code == 1
    facts = {one["name"]: one["rows"] for one in broken.document()}
    assert len(facts) > 10
    told = "I7 the events rebuild the subscriptions"
    assert {name: rows for name, rows in facts.items() if rows} == {told: [1]}
    shown = call("invariants")
    assert (shown.code, shown.out.count("broken 깨짐"), "rows: 1" in shown.out) == (1, 1, True)


def test_a_refused_header_is_a_failure_whatever_is_skipped(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "subscribers.csv"
    file.write_text(f"{HEADER},colour\ncustomer-1,9900,plan,{PAID},,,red\n", encoding="utf-8")
    for more in ([], ["--skip-bad"], ["--skip-bad", "--dry-run"], ["--dry-run"]):
        done = call("subscription", "import", str(file), *more, "--json")
        told = done.document()
        assert (done.code, told["read"], told["added"]) == (1, 0, 0)
        assert told["rejected"][0]["line"] == 1
    file.write_text(f"{HEADER}\ncustomer-1,9900,plan,{PAID},,\nbroken\n", encoding="utf-8")
    dry = call("subscription", "import", str(file), "--dry-run", "--json")
    assert (dry.code, dry.document()["added"]) == (1, 0)
    assert call("subscription", "import", str(file), "--skip-bad", "--json").code == 0


def test_what_a_pause_costs_is_said_before_it_is_done(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    added(call, "a")

    def dies(*_: object) -> None:
        raise RuntimeError("killed before the commit")

    with monkeypatch.context() as broken:
        broken.setattr(change_status, "pause", dies)
        broken.setattr(sys, "argv", ["maewol", "subscription", "pause", "a"])
        with pytest.raises(RuntimeError):
            main()
    done = call("subscription", "pause", "a", "--json")
    # That of the call that died, and that of this one: each once.
    assert done.err.count("Resume before") == 2
    assert done.err.count("전에 재개하십시오") == 2
    assert done.document()["status"] == "paused"


def test_forgetting_wants_a_yes_and_says_so_in_the_document(call: Call) -> None:
    added(call, "a")
    call("subscription", "cancel", "a", "--json")
    done = call("subscription", "forget", "a", "--json")
    told = done.document()
    assert (done.code, told["field"]) == (2, "--yes")
    assert "nothing was erased" in told["error"]
    assert "--yes를 붙이십시오" in told["remedy"]
    assert call("subscription", "forget", "a").code == 2
    assert call("subscription", "show", "a", "--json").document()["forgotten_at"] is None
    assert call("subscription", "forget", "a", "--yes", "--json").code == 0


@pytest.mark.usefixtures("healthy")
def test_a_wrong_span_is_one_document_too(call: Call) -> None:
    for first, last, said in (
        ("2099-01-01", "2099-01-02", "future"),
        ("2026-11-02", "2026-11-01", "Swap"),
    ):
        done = call("reconcile", "--from", first, "--to", last, "--json")
        assert done.code == 2
        assert said in done.document()["error"]


def doctor(call: Call, code: int) -> dict[str, dict[str, Any]]:
    done = call("doctor", "--json")
    found = done.document()
    assert (done.code, found["ok"]) == (code, code == 0)
    for check in found["checks"]:
        assert check["ok"] or check["remedy"]
    assert len({check["name"] for check in found["checks"]}) == len(found["checks"])
    return {check["name"]: check for check in found["checks"]}


def failing(found: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, check in found.items() if not check["ok"]}


@pytest.fixture
def healthy(book: Book, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Everything that charging needs, with a gateway that takes any credentials."""
    execute(
        book,
        "INSERT INTO heartbeats VALUES ('maewol.charge', now()), ('maewol.tick.open', now())",
    )
    with a_foreign_gateway() as gateway:
        monkeypatch.setenv("MAEWOL_PORTONE_API_URL", gateway.url)
        monkeypatch.setenv("MAEWOL_PORTONE_IMP_KEY", "the key")
        monkeypatch.setenv("MAEWOL_PORTONE_IMP_SECRET", "hunter2")
        yield


@pytest.mark.usefixtures("healthy")
def test_doctor_finds_each_thing_that_is_wrong(call: Call, book: Book) -> None:
    assert failing(doctor(call, 0)) == set()
    for name, breaking, mending in [
        (
            "hold",
            "UPDATE installation SET hold_reason = 'a drill'",
            "UPDATE installation SET hold_reason = NULL",
        ),
        (
            "gateway",
            "UPDATE gateway_health SET failures = 5",
            "UPDATE gateway_health SET failures = 0",
        ),
        (
            "workers seen",
            "UPDATE heartbeats SET at = at - interval '6 minutes' WHERE name = 'maewol.charge'",
            "UPDATE heartbeats SET at = now()",
        ),
        (
            "last tick",
            "DELETE FROM heartbeats WHERE name = 'maewol.tick.open'",
            "INSERT INTO heartbeats VALUES ('maewol.tick.open', now())",
        ),
        (
            "schema",
            "UPDATE alembic_version SET version_num = '0000'",
            "UPDATE alembic_version SET version_num = (SELECT * FROM remembered)",
        ),
    ]:
        execute(book, "CREATE TABLE IF NOT EXISTS remembered AS SELECT * FROM alembic_version")
        execute(book, breaking)
        assert failing(doctor(call, 1)) == {name}
        execute(book, mending)
    assert failing(doctor(call, 0)) == set()


@pytest.mark.usefixtures("healthy")
def test_doctor_misses_no_notices_where_nobody_wants_any(
    call: Call, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(
        book,
        "INSERT INTO notices (kind, data, created_at, next_try_at, give_up_at, dead_at)"
        " VALUES ('cycle.paid', '{}', now(), now(), now(), now())",
    )
    assert "NOTICE_URL" in doctor(call, 0)["notices"]["detail"]
    monkeypatch.setenv("MAEWOL_NOTICE_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("MAEWOL_NOTICE_SECRET", "whsec_" + "QUJD" * 8)
    assert failing(doctor(call, 1)) == {"notices"}


@pytest.mark.usefixtures("healthy")
def test_doctor_finds_a_misspelt_setting(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAEWOL_CHARGE_PER_SECOND", "7")
    found = doctor(call, 1)
    assert failing(found) == {"settings"}
    assert "did you mean MAEWOL_CHARGES_PER_SECOND?" in found["settings"]["remedy"]
    # What is in effect is still told.
    assert "CHARGES_PER_SECOND=50" in found["settings"]["detail"]
    # For people what is wrong comes first, then what is not, and the values last, each by itself.
    lines = call("doctor").out.splitlines()
    places = [
        _first(lines, told)
        for told in ("1 of ", "│ settings ", "│ database ", "│ CHARGES_PER_SECOND ")
    ]
    assert places == sorted(places)
    assert "nothing reads MAEWOL_CHARGE_PER_SECOND " in lines[places[1]]
    assert "50" in next(line for line in lines if "│ CHARGES_PER_SECOND " in line)


def _first(lines: list[str], told: str) -> int:
    return next(number for number, line in enumerate(lines) if told in line)


@pytest.mark.usefixtures("healthy")
def test_doctor_says_that_all_is_well_before_anything_else(call: Call) -> None:
    done = call("doctor")
    assert done.code == 0
    assert done.out.startswith("All ")
    names = [check["name"] for check in call("doctor", "--json").document()["checks"]]
    assert names[-1] == "settings"


@pytest.mark.usefixtures("healthy")
def test_doctor_compares_clocks_with_the_gateway_itself(call: Call, book: Book) -> None:
    """What a worker measured an hour ago proves nothing about now, in either direction."""
    execute(
        book,
        "UPDATE gateway_health SET clock_skew = interval '90 seconds', skew_checked_at = now()",
    )
    assert doctor(call, 0)["clock skew"]["ok"]
    execute(book, "UPDATE installation SET clock_offset = interval '90 seconds'")
    execute(book, "UPDATE gateway_health SET clock_skew = interval '0'")
    found = doctor(call, 1)
    assert failing(found) == {"clock skew"}
    # Both clocks tell whole seconds, or are read a little apart: not exactly 90.
    measured = re.search(r"is (-[\d.]+) s from ours", found["clock skew"]["detail"])
    assert measured
    assert -95 < float(measured[1]) < -85


@pytest.mark.usefixtures("healthy")
def test_doctor_says_when_nobody_answers(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAEWOL_PORTONE_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("MAEWOL_BROKER_URL", "redis://:hunter2@127.0.0.1:9/0")
    found = doctor(call, 1)
    assert failing(found) == {"credentials", "broker"}
    assert "hunter2" not in json.dumps(found)
    assert "MAEWOL_BROKER_URL" in found["broker"]["remedy"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgresql://u:hunter2@localhost:port/x"),
        ("DATABASE_URL", "postgresql://u:hunter2@[::1/x"),
        ("BROKER_URL", "redis://:hunter2@localhost:port/0"),
        ("BROKER_URL", "redis://:hunter2@[::1/0"),
    ],
)
def test_an_address_that_cannot_be_read_is_a_wrong_setting(
    call: Call, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"MAEWOL_{name}", value)
    done = call("status", "--json")
    assert done.code == 2
    assert (done.document()["field"], done.document()["value"]) == (name, "********")
    assert "hunter2" not in done.out + done.err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:hunter2@127.0.0.1:9/x", "nothing listens"),
        ("postgresql://u:hunter2@/x?host=/nowhere", "no server has a socket there"),
        ("postgresql://u:hunter2@127.0.0.1:9/x?colour=red", "ProgrammingError"),
    ],
)
def test_a_database_that_is_away_says_why(
    call: Call, monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    monkeypatch.setenv("MAEWOL_DATABASE_URL", url)
    done = call("status", "--json")
    assert done.code == 1
    assert said in done.document()["error"]
    where = "/nowhere" if "/nowhere" in url else "127.0.0.1:9"
    assert f"the database at {where} could not be used" in done.document()["error"]
    assert "hunter2" not in done.out + done.err
    found = {one["name"]: one for one in call("doctor", "--json").document()["checks"]}
    assert found["database"]["detail"].startswith(f"{where} could not be used: ")


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("postgresql+psycopg://u:hunter2@db/maewol", "db"),
        ("postgresql://u:hunter2@db:6543/maewol", "db:6543"),
        ("postgresql://u:h@/x?host=db1:5432&host=db2:5433", "db1:5432, db2:5433"),
        ("postgresql://u:h@/x?host=db1,db2", "db1, db2"),
        ("postgresql:///x", ""),
        # An @ of the password that was not written as %40.
        ("postgresql://u:hunter@2@db/x", "db"),
    ],
)
def test_of_an_address_only_the_servers_are_told(address: str, wanted: str) -> None:
    assert servers(address) == wanted


def test_the_code_of_postgresql_is_told(book: Book) -> None:
    slow = text("SET LOCAL statement_timeout = 10; SELECT pg_sleep(5)")
    with book.transaction() as tx, pytest.raises(DBAPIError) as cut:
        tx.session.execute(slow)
    assert why(cut.value) == "QueryCanceled (SQLSTATE 57014)"


def test_a_refused_password_is_told_without_it() -> None:
    """As PostgreSQL says it; our private one asks nobody for a password."""
    text = 'connection to server failed: FATAL:  password authentication failed for user "hunter2"'
    assert why(psycopg.OperationalError(text)) == "user or password are refused"
    assert why(psycopg.OperationalError("hunter2 " * 9)) == "OperationalError"


def test_a_data_folder_that_cannot_be_made_is_one_line(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a-file").touch()
    monkeypatch.delenv("MAEWOL_DATABASE_URL")
    monkeypatch.setenv("MAEWOL_DATA_DIR", str(tmp_path / "a-file" / "data"))
    done = call("status", "--json")
    assert done.code == 1
    assert "MAEWOL_DATA_DIR" in done.document()["error"]
    assert done.err.count("\n") == 1


# A shell that runs the tests in the background has them, and all they start, ignore Ctrl-C.
LISTENING = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    " from billing.cli import main; main()"
)


# -- processes of their own -------------------------------------------------------------------


def process(*words: str, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LISTENING, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env},
    )


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["table", "json"])
def test_a_reader_that_leaves_is_no_trouble(form: list[str]) -> None:
    """`maewol windows … | head -1`"""
    running = process("windows", "--initial-paid-on", "2024-01-31", "--months", "2000", *form)
    assert running.stdout is not None
    assert running.stderr is not None
    with running, running.stdout, running.stderr:
        assert running.stdout.read(10)
        running.stdout.close()
        assert running.stderr.read() == ""
        assert running.wait(60) in (0, 1)


@pytest.mark.parametrize("encoding", ["ascii", "euc_kr", "iso8859-1"])
def test_what_is_done_does_not_look_failed_where_the_terminal_lacks_letters(
    database_url: str, servers: Servers, encoding: str
) -> None:
    """`ko_KR.eucKR` has no emoji, others have no Korean: an escape stands for them, as in JSON."""
    assert servers.broker_url is not None
    reason = "점검 😀 é"
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONIOENCODING": encoding,
        "MAEWOL_DATABASE_URL": database_url,
        "MAEWOL_BROKER_URL": servers.broker_url,
    }

    def told(*words: str) -> str:
        command = [sys.executable, "-c", LISTENING, *words]
        done = subprocess.run(command, env=env, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode(encoding)
        assert b"Traceback" not in done.stderr
        return done.stdout.decode(encoding)

    assert "\\ud83d\\ude00" in told("hold", "--why", reason)
    assert json.loads(told("status", "--json"))["hold"] == reason


def test_ctrl_c_ends_an_import_quietly_and_writes_nothing(
    database_url: str, servers: Servers, book: Book, tmp_path: Path
) -> None:
    assert servers.broker_url is not None
    file = tmp_path / "subscribers.csv"
    os.mkfifo(file)
    running = process(
        *("subscription", "import", str(file), "--json"),
        MAEWOL_DATABASE_URL=database_url,
        MAEWOL_BROKER_URL=servers.broker_url,
    )
    with running, file.open("w", encoding="utf-8") as lines:
        lines.write(f"{HEADER}\ncustomer-1,9900,plan,{PAID},,\n")
        lines.flush()
        copying = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND query ILIKE 'COPY staged%'"
        )
        deadline = time.monotonic() + 60
        while not query(book, copying)[0][0]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert query(book, "SELECT count(*) FROM subscriptions") == [(0,)]


@pytest.mark.parametrize("name", ["MAEWOL_WINDOW_DAYS", "maewol_window_days"])
def test_a_wrong_setting_is_shown_wherever_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", ".env")
    with pytest.raises(InvalidSetting, match="WINDOW_DAYS='9'"):
        Settings.load(window_days="9")
    (tmp_path / ".env").write_text("MAEWOL_WINDOW_DAYS=8\n", encoding="utf-8")
    with pytest.raises(InvalidSetting, match="WINDOW_DAYS='8'"):
        Settings.load()
    monkeypatch.setenv(name, "7")
    with pytest.raises(InvalidSetting, match="WINDOW_DAYS='7'"):
        Settings.load()


def test_a_wrong_secret_is_masked_wherever_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidSetting) as caught:
        Settings.load(api_token=["hunter2"])
    assert "API_TOKEN='********'" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("level", ["critical", "Debug", "INFO"])
def test_a_log_level_in_any_case(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    monkeypatch.setenv("MAEWOL_LOG_LEVEL", level)
    assert Settings.load().log_level == level.upper()
    monkeypatch.setenv("MAEWOL_LOG_LEVEL", "loud")
    with pytest.raises(InvalidSetting, match="LOG_LEVEL='loud'"):
        Settings.load()


def test_settings_come_from_a_file_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MAEWOL_WINDOW_DAYS=2\n", encoding="utf-8")
    words = ["windows", "--initial-paid-on", "2024-01-15", "--months", "1", "--json"]
    with process(*words, cwd=tmp_path) as running:
        out, _ = running.communicate(timeout=60)
    assert json.loads(out)[0]["opens_on"] == "2024-02-13"
    with process(*words, cwd=tmp_path, MAEWOL_WINDOW_DAYS="1") as running:
        out, _ = running.communicate(timeout=60)
    assert json.loads(out)[0]["opens_on"] == "2024-02-14", "the environment is stronger"


@pytest.mark.parametrize("as_json", [True, False])
def test_an_import_that_cannot_ask_the_gateway_says_so_and_writes_nothing(
    call: Call, book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    for name, value in (("API_URL", "http://127.0.0.1:9"), ("IMP_KEY", "k"), ("IMP_SECRET", "s")):
        monkeypatch.setenv(f"MAEWOL_PORTONE_{name}", value)
    file = tmp_path / "in.csv"
    file.write_text(f"{HEADER}\n{a_row(1)}\n", encoding="utf-8")
    done = call("subscription", "import", str(file), "--verify", *(["--json"] if as_json else []))
    assert done.code == 1
    for said in ("the gateway could not be asked", "nothing was written", "PORTONE_API_URL"):
        assert said in done.err
    if as_json:
        assert done.document()["error"] in done.err
    else:
        assert done.out == ""
    assert query(book, "SELECT count(*) FROM subscriptions") == [(0,)]


@pytest.mark.parametrize("key", [KeyboardInterrupt, EOFError], ids=["Ctrl-C", "Ctrl-D"])
def test_a_question_that_is_left_is_no_yes_and_no_traceback(
    call: Call, monkeypatch: pytest.MonkeyPatch, key: type[BaseException]
) -> None:
    added(call, "a")

    def typed(*_: Any) -> str:
        raise key

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("typer._click.termui.visible_prompt_func", typed)
    done = call("subscription", "cancel", "a")
    assert done.code == 1
    assert done.err.endswith("maewol: no answer; nothing was done. 답이 없어 실행하지 않았습니다\n")
    assert call("subscription", "show", "a", "--json").document()["status"] == "active"


def test_at_a_terminal_a_cancellation_is_asked_about_first(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    added(call, "a")
    questions: list[str] = []

    def no(question: str, **_: Any) -> bool:
        questions.append(question)
        return False

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", no)
    done = call("subscription", "cancel", "a")
    assert (done.code, len(questions)) == (1, 1)
    assert "This is final" in done.err
    assert call("subscription", "show", "a", "--json").document()["status"] == "active"
    # What it means is said once: before the question, and not again after a yes.
    monkeypatch.setattr("typer.confirm", lambda *_, **__: True)
    added(call, "b")
    done = call("subscription", "cancel", "b")
    assert (done.code, done.err.count("This is final")) == (0, 1)
    monkeypatch.setattr("typer.confirm", no)
    # Who says yes beforehand, or reads JSON, is not asked.
    done = call("subscription", "cancel", "a", "--yes")
    assert (done.code, done.err.count("This is final")) == (0, 1)
    assert call("subscription", "cancel", "a", "--json").document()["status"] == "cancelled"
    assert len(questions) == 1
