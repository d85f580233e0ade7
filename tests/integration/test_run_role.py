"""The daemons' role of docs/security.md: what it is granted is enough, and no more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from billing.domain.policy import BillingPolicy
from billing.services.dispatch import dispatch
from billing.services.open_cycles import open_cycles
from billing.store.session import Book, create_book_engine
from tests.builders import a_row, enrolled, execute
from tests.conftest import MovedClock
from tests.integration.test_engine import Queue

PAGE = Path(__file__).parents[2] / "docs" / "security.md"


@pytest.fixture
def run_book(database_url: str, clock: MovedClock) -> Iterator[Book]:
    """The book as the daemons see it, with the page's own statements."""
    (statements,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    owner = make_url(database_url).set(drivername="postgresql")
    address = owner.render_as_string(hide_password=False)
    made = statements.replace("DATABASE maewol", f'DATABASE "{owner.database}"')
    made = made.replace("ROLE maewol ", f'ROLE "{owner.username}" ').replace("'…'", "'run'")
    with psycopg.connect(address) as connection:
        connection.execute(made.encode())
    engine = create_book_engine(
        make_url(database_url)
        .set(username="maewol_run", password="run")
        .render_as_string(hide_password=False)
    )
    yield Book(engine, clock.read)
    engine.dispose()
    with psycopg.connect(address) as connection:
        connection.execute("DROP OWNED BY maewol_run")
        connection.execute("DROP ROLE maewol_run")


def test_the_role_without_ddl_imports_opens_and_hands_out(
    run_book: Book, make_policy: Callable[..., BillingPolicy], clock: MovedClock
) -> None:
    policy = make_policy(charge_cron="* * * * *")
    rows = [a_row(number, "2026-01-20T12:00:00+09:00") for number in range(3)]
    assert enrolled(run_book, policy, *rows).added == 3
    assert open_cycles(run_book, policy) == 3
    assert dispatch(run_book, Queue(), policy) == 3
    for statement in ("ALTER TABLE cycles ADD COLUMN x int", "CREATE TABLE public.x (id int)"):
        with pytest.raises(ProgrammingError, match=r"must be owner|permission denied"):
            execute(run_book, statement)
