"""Moments and days beyond the calendar of Python, read as its ends.

PostgreSQL knows `infinity`, and years after 9999. Somebody who wants one row left alone writes that
into it; the driver refuses to read it, and with it every other row that was asked for.
"""

from __future__ import annotations

from typing import Any, ClassVar

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Loader

from billing.domain.calendar import FIRST_MOMENT, LAST_MOMENT


class _Bounded(Loader):
    ends: ClassVar[tuple[Any, Any]]

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        usual = psycopg.adapters.get_loader(oid, self.format)
        if usual is None:
            raise TypeError(f"the driver reads no values of type {oid}")
        self._load = usual(oid, context).load

    def load(self, data: Buffer) -> Any:
        first, last = self.ends
        try:
            found = self._load(data)
        except psycopg.DataError:
            text = bytes(data)
            return first if text.startswith(b"-") or text.endswith(b"BC") else last
        # What can be read may still have no day in Seoul.
        return found if first < found < last else min(max(found, first), last)


class _Moment(_Bounded):
    ends = (FIRST_MOMENT, LAST_MOMENT)


class _Day(_Bounded):
    ends = (FIRST_MOMENT.date(), LAST_MOMENT.date())


def read_it(connection: psycopg.Connection[Any], _record: object) -> None:
    """To be called with each new connection."""
    connection.adapters.register_loader("timestamptz", _Moment)
    connection.adapters.register_loader("date", _Day)
