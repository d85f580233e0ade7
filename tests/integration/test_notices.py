"""The outbox against a real receiver: at least once, in order, and never without end."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from billing import clock as clocks
from billing import logs
from billing.domain.delivery import LONGEST_WAIT, TRIED_FOR
from billing.domain.errors import InvalidInput, NotFound
from billing.domain.notice import Resumed
from billing.domain.policy import BillingPolicy
from billing.notifier import HttpNotifier
from billing.services.notify import LEASE, WIDTH, deliver, find_due
from billing.services.resend import resend, resend_dead
from billing.store import events, notices, receiver
from billing.store.session import Book, create_book_engine
from tests.builders import execute, query
from tests.conftest import MovedClock
from tests.merchant import KEY, Answer, Merchant, Seen, a_merchant

NOWHERE = "http://127.0.0.1:9/hooks"
BUSY = Answer(503)
BROKEN = Answer(500)


class Outbox:
    """A book whose notices are found and sent when the test says so."""

    def __init__(
        self, book: Book, policy: BillingPolicy, clock: MovedClock, merchant: Merchant
    ) -> None:
        self.book, self.policy, self.clock, self.merchant = book, policy, clock, merchant
        self.url = merchant.url
        self.found: list[list[int]] = []
        self._loop = asyncio.Runner()
        self._notifiers: dict[tuple[str, float], HttpNotifier] = {}

    def close(self) -> None:
        for notifier in self._notifiers.values():
            self._loop.run(notifier.aclose())
        self._loop.close()

    # -- NoticeQueue ----------------------------------------------------------------------------

    def notify(self, notice_ids: Any) -> None:
        self.found.append(list(notice_ids))

    def notify_soon(self) -> None:
        """The test says when."""

    # -- what happens ---------------------------------------------------------------------------

    def write(self, *subscription_ids: int | None, each: int = 1) -> None:
        """News of these subscriptions; `before` tells them apart."""
        with self.book.transaction() as tx:
            for number in range(each):
                for subscription_id in subscription_ids:
                    events.notify(
                        tx.session,
                        at=tx.now,
                        subscription_id=subscription_id,
                        news=Resumed(before=f"{subscription_id}-{number}"),
                    )

    def round(self, ids: list[int] | None = None, *, deadline: float = 5.0) -> Counter[str]:
        """One tick, and what it sent to the sender."""
        if ids is None:
            find_due(self.book, self, self.policy, wanted=True)
            ids = self.found.pop() if self.found else []
        key = (self.url, deadline)
        if key not in self._notifiers:
            self._notifiers[key] = HttpNotifier(
                self.url, [KEY], now=clocks.host_time, deadline_seconds=deadline
            )
        return self._loop.run(deliver(self.book, self._notifiers[key], self.policy, ids))

    def to_next_try(self) -> None:
        """The clock goes on to the minute at which something may be sent again."""
        (found,) = query(
            self.book,
            "SELECT min(n.next_try_at) FROM notices n WHERE dead_at IS NULL AND delivered_at IS"
            " NULL AND NOT EXISTS (SELECT FROM notices e WHERE e.subscription_id ="
            " n.subscription_id AND e.id < n.id AND e.dead_at IS NULL AND e.delivered_at IS NULL)",
        )
        if found[0] is not None:
            self.clock.move_to(max(self.clock.now, found[0]) + timedelta(minutes=1))

    def until_quiet(self) -> None:
        """Ticks until nothing is due any more."""
        while self.round():
            pass

    def one(self) -> tuple[Any, ...]:
        """The only notice: tries, problem, whether it is delivered, whether it is dead."""
        (found,) = query(
            self.book,
            "SELECT tries, problem, delivered_at IS NOT NULL, dead_at IS NOT NULL FROM notices",
        )
        return found

    def count(self, status: str) -> int:
        where = {
            "waiting": "delivered_at IS NULL AND dead_at IS NULL",
            "delivered": "delivered_at IS NOT NULL",
            "dead": "dead_at IS NOT NULL",
        }[status]
        return int(query(self.book, f"SELECT count(*) FROM notices WHERE {where}")[0][0])

    def alarms(self) -> list[str]:
        return [row[0] for row in query(self.book, "SELECT kind FROM events WHERE alarm")]


@pytest.fixture
def merchant() -> Iterator[Merchant]:
    with a_merchant() as running:
        yield running


@pytest.fixture
def outbox(
    book: Book, policy: BillingPolicy, clock: MovedClock, merchant: Merchant
) -> Iterator[Outbox]:
    opened = Outbox(book, policy, clock, merchant)
    yield opened
    opened.close()


# -- the good case --------------------------------------------------------------------------------


def test_everything_is_delivered_once_and_in_order(outbox: Outbox) -> None:
    two_at_once = threading.Event()

    def answered(_: Seen) -> Answer:
        """The first is kept waiting for the second: on a quick machine they would not meet."""
        if outbox.merchant.at_once > 1:
            two_at_once.set()
        two_at_once.wait(5)
        return Answer()

    outbox.merchant.answer = answered
    outbox.write(*range(1, 21), each=3)
    outbox.until_quiet()
    seen = outbox.merchant.seen
    assert len(seen) == 60
    assert len({one.webhook_id for one in seen}) == 60
    order = [int(one.webhook_id.split("_")[1]) for one in seen]
    for subscription_id in range(1, 21):
        mine = [number for number in order if number % 20 == subscription_id % 20]
        assert mine == sorted(mine)
    assert 1 < outbox.merchant.most_at_once <= WIDTH
    assert outbox.count("delivered") == 60
    assert outbox.round() == {}


def test_notices_without_a_subscription_do_not_wait_for_each_other(outbox: Outbox) -> None:
    outbox.write(None, each=5)
    assert outbox.round() == {"delivered": 5}


def test_a_message_that_comes_twice_or_late_sends_nothing(outbox: Outbox) -> None:
    outbox.write(1)
    assert outbox.round([1]) == {"delivered": 1}
    assert outbox.round([1]) == {}
    assert outbox.round([99]) == {}


def test_both_secrets_sign_while_they_are_changed(outbox: Outbox) -> None:
    outbox.write(1)

    async def send() -> Counter[str]:
        keys = [b"the one that follows, 24 bytes", KEY]
        notifier = HttpNotifier(outbox.url, keys, now=clocks.host_time)
        try:
            return await deliver(outbox.book, notifier, outbox.policy, [1])
        finally:
            await notifier.aclose()

    assert asyncio.run(send()) == {"delivered": 1}
    assert outbox.merchant.seen[0].headers["webhook-signature"].count("v1,") == 2


# -- order under failures -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_each_subscription_holds_whatever_fails(outbox: Outbox, seed: int) -> None:
    """Refusals, silence, and answers that are lost after the receiver took the notice."""
    luck = random.Random(seed)
    kinds = [*[Answer()] * 4, BROKEN, BUSY, Answer(400), Answer(reset=True)]
    outbox.merchant.answer = lambda _: luck.choice(kinds)
    for _ in range(4):
        outbox.write(*luck.sample(range(1, 7), 6))
    written = {
        subscription_id: [
            row[0]
            for row in query(
                outbox.book,
                "SELECT id FROM notices WHERE subscription_id = :id ORDER BY id",
                id=subscription_id,
            )
        ]
        for subscription_id in range(1, 7)
    }
    while outbox.count("waiting"):
        outbox.round()
        outbox.to_next_try()
    assert outbox.count("delivered") == 24
    for numbers in written.values():
        taken = [int(one.webhook_id.split("_")[1]) for one in outbox.merchant.taken]
        first = list(dict.fromkeys(number for number in taken if number in numbers))
        assert first == numbers
    bodies: dict[str, set[str]] = {}
    for one in outbox.merchant.seen:
        bodies.setdefault(one.webhook_id, set()).add(one.raw)
    assert all(len(same) == 1 for same in bodies.values()), "one id, one text"


def test_a_refused_notice_holds_up_its_own_subscription_only(outbox: Outbox) -> None:
    outbox.write(1, 2, each=2)
    outbox.merchant.answer = lambda one: BROKEN if one.body["data"]["before"] == "1-0" else Answer()
    outbox.until_quiet()
    taken = [one.body["data"]["before"] for one in outbox.merchant.taken]
    assert taken == ["2-0", "2-1"]
    outbox.merchant.answer = lambda _: Answer()
    outbox.clock.move(minutes=2)
    outbox.until_quiet()
    assert [one.body["data"]["before"] for one in outbox.merchant.taken[2:]] == ["1-0", "1-1"]


# -- what receivers do ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Answer(500), "answered 500"),
        (Answer(410), "answered 410"),
        (Answer(404, size=2_000), "answered 404"),
        (Answer(503), "answered 503"),
        (Answer(reset=True, status=500), "the connection broke (RemoteProtocolError)"),
        (Answer(500, size=300_000_000), "answered 500"),
    ],
)
def test_what_is_not_taken_is_tried_again(outbox: Outbox, answer: Answer, problem: str) -> None:
    outbox.write(1)
    outbox.merchant.answer = lambda _: answer
    outbox.round()
    tries, told, delivered, dead = outbox.one()
    assert (tries, delivered, dead) == (1, False, False)
    assert told == problem or told.startswith("the connection broke (Read")
    assert outbox.round() == {}, "not at once"
    outbox.clock.move(seconds=73)
    outbox.merchant.answer = lambda _: Answer(200)
    assert outbox.round() == {"delivered": 1}
    assert len({one.webhook_id for one in outbox.merchant.seen}) == 1


def test_a_redirect_is_a_refusal_and_never_followed(outbox: Outbox) -> None:
    outbox.write(1)
    elsewhere = outbox.url.replace("/hooks", "/moved")
    outbox.merchant.answer = lambda _: Answer(308, {"location": elsewhere})
    assert outbox.round() == {"refused": 1}
    assert "redirects are never followed" in outbox.one()[1]
    assert outbox.merchant.elsewhere == []
    assert len(outbox.merchant.seen) == 1


def test_a_receiver_that_is_too_slow_is_not_waited_for(outbox: Outbox) -> None:
    outbox.write(1)
    outbox.merchant.answer = lambda _: Answer(500, delay=0.6)
    assert outbox.round(deadline=0.2) == {"unreachable": 1}
    assert outbox.one()[1] == "no answer within 0.2 s"


def test_an_address_at_which_the_client_itself_breaks_is_a_try_like_any_other(
    outbox: Outbox,
) -> None:
    outbox.write(1)
    outbox.url = "https://xn--zzzz.example/"
    with pytest.raises(UnicodeError):
        outbox.round()
    assert outbox.one() == (1, "could not be sent (IDNAError)", False, False)
    outbox.to_next_try()
    outbox.url = outbox.merchant.url
    assert outbox.round() == {"delivered": 1}


def test_an_answer_whose_rest_does_not_come_counts_all_the_same(outbox: Outbox) -> None:
    outbox.write(1)
    outbox.merchant.answer = lambda _: Answer(200, size=10, dribble=0.8)
    assert outbox.round(deadline=0.3) == {"delivered": 1}
    outbox.write(2)
    outbox.merchant.answer = lambda _: Answer(200, size=300_000_000)
    assert outbox.round() == {"delivered": 1}


@pytest.mark.parametrize(
    ("asked", "quiet"),
    [
        ("600", timedelta(minutes=10)),
        ("999999999999", timedelta(hours=1)),
        ("Wed, 21 Oct 2099 07:28:00 GMT", timedelta(hours=1)),
        ("soon", timedelta(minutes=0)),
        ("-5", timedelta(minutes=0)),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", timedelta(minutes=0)),
        ("Wed, 21 Oct 2099 07:28:00 +99999999999999", timedelta(minutes=0)),
    ],
)
def test_a_receiver_that_asks_for_patience_gets_it_within_bounds(
    outbox: Outbox, asked: str, quiet: timedelta
) -> None:
    outbox.write(1)
    outbox.merchant.answer = lambda _: Answer(429, {"retry-after": asked})
    assert outbox.round() == {"unreachable": 1}
    outbox.merchant.answer = lambda _: Answer()
    outbox.write(2)
    outbox.clock.move(seconds=max(quiet.total_seconds() - 1, 0))
    assert outbox.round() == ({} if quiet else {"delivered": 1}), "it asked for all of them"
    outbox.clock.move(seconds=75)
    outbox.until_quiet()
    assert outbox.count("delivered") == 2


def test_only_a_certificate_that_somebody_vouches_for_is_taken(
    outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = _certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with a_merchant(context) as secured:
        outbox.url = secured.url
        outbox.write(1)
        assert outbox.round() == {"unreachable": 1}
        assert outbox.one()[1] == "its certificate is not valid"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        outbox.clock.move(minutes=2)
        assert outbox.round(deadline=4.0) == {"delivered": 1}
    assert len(secured.seen) == 1


def _certificate(folder: Path) -> Path:
    made = folder / "receiver.pem"
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(made), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    made.write_text(made.read_text() + (folder / "cert.pem").read_text())
    return made


# -- a receiver that is down ----------------------------------------------------------------------


def test_a_receiver_that_is_down_is_not_asked_about_each_notice(outbox: Outbox) -> None:
    outbox.write(*range(1, 61))
    outbox.url = NOWHERE
    assert outbox.round() == {"unreachable": WIDTH}
    for _ in range(3):
        outbox.clock.move(minutes=1)
        assert outbox.round() == {"unreachable": receiver.PROBES}
    assert outbox.alarms() == [], "a restart is no alarm"
    outbox.url = outbox.merchant.url
    outbox.clock.move(minutes=1)
    assert outbox.round()["delivered"] > WIDTH
    outbox.clock.move(minutes=5)
    outbox.until_quiet()
    assert outbox.count("delivered") == 60


def test_an_outage_of_days_is_one_alarm_of_each_kind_and_all_is_kept(outbox: Outbox) -> None:
    outbox.url = NOWHERE
    outbox.write(*range(1, 61))
    for _ in range(14):
        outbox.round()
        outbox.clock.move(hours=6)
        outbox.write(1000)
    assert outbox.count("dead") == 61, "those of three days and more"
    assert outbox.count("waiting") == 13
    assert outbox.alarms() == ["receiver.down", "notice.dead"]
    assert len(outbox.merchant.seen) == 0
    outbox.url = outbox.merchant.url
    outbox.clock.move(hours=13)
    outbox.until_quiet()
    assert resend_dead(outbox.book) == outbox.count("waiting") > 0
    outbox.until_quiet()
    assert outbox.count("delivered") == 74


def test_a_refused_notice_is_tried_for_three_days_and_then_dead_with_one_alarm(
    outbox: Outbox,
) -> None:
    outbox.merchant.answer = lambda _: BROKEN
    for subscription_id in (1, 2):
        outbox.write(subscription_id, each=2)
    began = outbox.clock.now
    while outbox.count("waiting"):
        outbox.round()
        outbox.to_next_try()
    assert outbox.clock.now - began <= TRIED_FOR + timedelta(minutes=30)
    tries = [row[0] for row in query(outbox.book, "SELECT tries FROM notices ORDER BY id")]
    assert all(12 <= count <= 18 for count in tries[::2])
    assert tries[1::2] == [1, 1], "those behind them had their turn, too"
    assert outbox.alarms() == ["notice.dead"]


# -- crashes and races ----------------------------------------------------------------------------

_SENDER = """
import asyncio, sys
from billing import clock
from billing.bootstrap import billing_policy
from billing.notifier import HttpNotifier
from billing.services.notify import deliver
from billing.settings import Settings
from billing.store.session import Book, create_book_engine
from tests.merchant import KEY

async def main(database, url):
    book = Book(create_book_engine(database), clock.database_time)
    notifier = HttpNotifier(url, [KEY], now=clock.host_time)
    await deliver(book, notifier, billing_policy(Settings.load()), [1])

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_sender_that_is_killed_before_it_could_record_sends_the_same_again(
    outbox: Outbox, database_url: str
) -> None:
    outbox.clock.move_to(datetime.now(UTC))
    outbox.write(1)
    outbox.clock.move(seconds=1)

    def kill(_: Seen) -> Answer:
        os.kill(sender.pid, signal.SIGKILL)
        return Answer()

    outbox.merchant.answer = kill
    sender = subprocess.Popen(
        [sys.executable, "-c", _SENDER, database_url, outbox.url], cwd=Path(__file__).parents[2]
    )
    assert sender.wait(60) == -signal.SIGKILL
    assert outbox.one()[:3] == (1, None, False)
    outbox.merchant.answer = lambda _: Answer()
    outbox.clock.move_to(datetime.now(UTC))
    assert outbox.round([1]) == {}, "its lease and its round hold"
    outbox.clock.move(seconds=LEASE.total_seconds() + 1)
    assert outbox.round() == {"delivered": 1}
    first, second = outbox.merchant.seen
    assert (first.webhook_id, first.raw) == (second.webhook_id, second.raw)


def test_two_senders_never_send_one_notice_at_the_same_moment(
    outbox: Outbox, database_url: str
) -> None:
    outbox.write(*range(1, 41))
    outbox.merchant.answer = lambda _: Answer(delay=0.02)
    ids = list(range(1, 41))
    book = Book(create_book_engine(database_url), outbox.clock.read)
    other = Outbox(book, outbox.policy, outbox.clock, outbox.merchant)
    done: list[Counter[str]] = []

    def work(mine: Outbox) -> None:
        done.append(mine.round(ids))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in (outbox, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    other.book.close()
    assert sum((one["delivered"] for one in done), 0) == 40
    assert min(len(one) for one in done) == 0, "one round at a time"
    assert len(outbox.merchant.seen) == 40
    assert not outbox.merchant.doubled


def test_claims_side_by_side_are_never_of_the_same_notice(outbox: Outbox) -> None:
    outbox.write(*range(1, 11), each=2)
    ids = list(range(1, 21))
    with outbox.book.transaction() as first, outbox.book.transaction() as second:
        mine = notices.claim(first.session, ids, first.now, LEASE, 4)
        theirs = notices.claim(second.session, ids, second.now, LEASE, 20)
    assert len(mine) == 4
    assert len(theirs) == 6
    assert not {one.notice_id for one in mine} & {one.notice_id for one in theirs}
    with outbox.book.transaction() as third:
        assert notices.claim(third.session, ids, third.now, LEASE, 20) == ()


def test_a_sender_that_lost_its_lease_cannot_put_off_what_another_has(outbox: Outbox) -> None:
    outbox.write(1)
    with outbox.book.transaction() as tx:
        (slow,) = notices.claim(tx.session, [1], tx.now, LEASE, 1)
    outbox.clock.move(seconds=61)
    with outbox.book.transaction() as tx:
        (quick,) = notices.claim(tx.session, [1], tx.now, LEASE, 1)
        assert not notices.failed(tx.session, slow, tx.now, None, "late")
        notices.delivered(tx.session, slow, tx.now)
        assert not notices.failed(tx.session, quick, tx.now, None, "it was taken already")
    assert outbox.one() == (2, None, True, False)


def test_a_clock_that_is_moved_back_leaves_nobody_waiting(outbox: Outbox) -> None:
    outbox.clock.move(days=30)
    execute(outbox.book, "UPDATE receiver SET round_until = :at, pause_until = :at",
            at=outbox.clock.now)  # fmt: skip
    outbox.clock.move(days=-30)
    outbox.write(1)
    execute(
        outbox.book,
        "UPDATE notices SET lease_until = :at",
        at=outbox.clock.now + timedelta(days=30),
    )
    assert outbox.round() == {"delivered": 1}


def test_what_was_written_by_a_clock_far_ahead_keeps_nothing_waiting(outbox: Outbox) -> None:
    """Nor what follows it in its order."""
    outbox.clock.move(days=40)
    outbox.write(1)
    outbox.clock.move(days=-40)
    outbox.write(1)
    outbox.until_quiet()
    assert outbox.count("delivered") == 2


def test_the_longest_wait_is_waited_for_all_the_same(outbox: Outbox) -> None:
    outbox.write(1)
    execute(outbox.book, "UPDATE notices SET next_try_at = :at", at=outbox.clock.now + LONGEST_WAIT)
    assert outbox.round() == {}
    outbox.clock.move(seconds=LONGEST_WAIT.total_seconds())
    assert outbox.round() == {"delivered": 1}


def test_what_a_clock_far_ahead_told_of_the_receiver_silences_nothing(outbox: Outbox) -> None:
    """The outage that begins in it is told of as ever; so are deaths after those of before."""
    outbox.url = NOWHERE
    outbox.write(*range(1, 61))
    outbox.clock.move(days=2)
    outbox.round()
    ahead = outbox.clock.now + timedelta(days=40)
    execute(outbox.book, "UPDATE receiver SET dead_told_at = :at", at=ahead)
    outbox.clock.move(days=-2)
    for number in range(14):
        outbox.round()
        assert ("receiver.down" in outbox.alarms()) == (number > 0), "an hour after the leap"
        outbox.clock.move(hours=6)
        outbox.write(1000)
    assert outbox.alarms() == ["receiver.down", "notice.dead"]


def test_thousands_that_wait_behind_one_are_looked_at_once_each(outbox: Outbox) -> None:
    """Never joined with each other, which took minutes for fifty thousand."""
    outbox.write(1, each=1000)
    execute(outbox.book, "ANALYZE notices")
    plans: list[str] = []

    def explain(connection: Any, _: Any, statement: str, parameters: Any, *__: object) -> None:
        if statement.startswith("SELECT notices.id \nFROM"):
            with connection.connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE) {statement}", parameters)
                plans.append("\n".join(row[0] for row in cursor))

    with outbox.book.transaction() as tx:
        engine = tx.session.get_bind()
        event.listen(engine, "before_cursor_execute", explain)
        assert notices.due(tx.session, tx.now, LEASE, 500) == [1]
        assert len(notices.claim(tx.session, range(1, 501), tx.now, LEASE, 20)) == 1
        event.remove(engine, "before_cursor_execute", explain)
    assert len(plans) == 2
    assert not any("Join" in plan or "Nested Loop" in plan for plan in plans), plans


# -- again, and gone ------------------------------------------------------------------------------


def test_what_was_given_up_or_lost_is_sent_again_under_its_own_id(outbox: Outbox) -> None:
    outbox.write(1, each=2)
    outbox.round()
    execute(outbox.book, "UPDATE notices SET dead_at = now(), problem = 'x' WHERE id = 2")
    taken = outbox.merchant.taken[0].webhook_id
    assert resend(outbox.book, taken) == 1
    assert resend(outbox.book, "2") == 1
    outbox.until_quiet()
    ids = [one.webhook_id for one in outbox.merchant.taken]
    assert ids[0] == ids[1] == taken
    assert ids[2].startswith("mw_2_")
    assert outbox.count("delivered") == 2
    with pytest.raises(NotFound):
        resend(outbox.book, "77")
    with pytest.raises(InvalidInput):
        resend(outbox.book, "'; DROP TABLE notices")
    assert query(outbox.book, "SELECT count(*) FROM events WHERE kind = 'notice.sent_again'") == [
        (2,)
    ]


def test_without_a_receiver_nothing_piles_up(outbox: Outbox) -> None:
    outbox.write(1, each=600)
    assert find_due(outbox.book, outbox, outbox.policy, wanted=False) == 0
    assert outbox.count("waiting") == 600, "it may be set again soon"
    outbox.clock.move(days=3)
    outbox.write(2)
    assert find_due(outbox.book, outbox, outbox.policy, wanted=False) == 0
    assert query(outbox.book, "SELECT subscription_id FROM notices") == [(2,)]
    assert outbox.round() == {"delivered": 1}, "set by now: what is old was not sent"


def test_what_ended_is_kept_for_ninety_days(outbox: Outbox) -> None:
    outbox.write(1, each=3)
    outbox.until_quiet()
    execute(outbox.book, "UPDATE notices SET delivered_at = NULL, dead_at = now() WHERE id = 2")
    outbox.clock.move(days=89)
    outbox.round()
    assert query(outbox.book, "SELECT count(*) FROM notices") == [(3,)]
    outbox.clock.move(days=2)
    outbox.write(1)
    outbox.round()
    assert query(outbox.book, "SELECT id FROM notices") == [(4,)]


def test_by_a_clock_that_is_far_off_nothing_is_old_enough(outbox: Outbox) -> None:
    """A hundred days ahead for one tick: what the receiver refused, or could not take, is kept."""
    outbox.write(1, each=3)
    outbox.until_quiet()
    outbox.url = NOWHERE
    for _ in range(4):
        outbox.write(2, 3, 4)
        outbox.round()
        outbox.clock.move(minutes=5)
    held = "SELECT id, dead_at, delivered_at FROM notices ORDER BY id"
    before = query(outbox.book, held)
    assert outbox.count("waiting") == 12
    outbox.clock.move(days=100)
    note = "UPDATE gateway_health SET clock_skew = :skew, skew_checked_at = :now"
    for skew, wanted in ((timedelta(days=-100), True), (timedelta(days=-100), False)):
        execute(outbox.book, note, skew=skew, now=outbox.clock.now)
        find_due(outbox.book, outbox, outbox.policy, wanted=wanted)
        assert query(outbox.book, held) == before
    execute(outbox.book, note, skew=timedelta(0), now=outbox.clock.now)
    outbox.round()
    assert (outbox.count("delivered"), outbox.count("dead")) == (0, 12)


# -- secrets --------------------------------------------------------------------------------------


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    import logging

    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure("json", "DEBUG")
    yield lambda: "".join(capsys.readouterr())
    root.handlers[:], root.level = before


def test_no_secret_and_no_address_reaches_the_log_or_the_book(
    outbox: Outbox, logged: Callable[[], str]
) -> None:
    for subscription_id, answer in enumerate((BROKEN, BUSY, Answer(reset=True), Answer()), 1):
        outbox.write(subscription_id)
        outbox.merchant.answer = lambda _, answer=answer: answer
        outbox.round()
    outbox.url = NOWHERE
    outbox.clock.move(hours=2)
    outbox.round()
    told = logged() + str(query(outbox.book, "SELECT problem FROM notices"))
    told += str(query(outbox.book, "SELECT problem FROM receiver"))
    for secret in ("/hooks", KEY.decode(), "whsec", "v1,", "127.0.0.1"):
        assert secret not in told
