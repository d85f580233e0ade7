"""Everything that can go wrong by name. Expected results are values; these are for misuse and
broken dependencies.

BillingError
├── InvalidInput            bad data from outside: names the field, the value and the remedy
│   └── InvalidSetting      the same for a setting; stops the process at start
├── NotFound                no such subscription, cycle or payment
├── Conflict                the request contradicts what the book already holds
│   └── Unconfirmed         the gateway does not vouch for it: field, value and remedy as above
├── TransitionRefused       a status cannot follow another
├── GatewayError            the gateway could not be asked; nothing is concluded from it
│   ├── GatewayUnavailable  no answer, or no usable one
│   │   ├── AnswerUnusable  an answer that will be the same when it is asked for again
│   │   └── RowsUnreadable  a list but for some rows: what was given of it is true
│   └── GatewayRefused      our credentials or contract are not accepted
├── SchemaMismatch          the schema does not serve this version: migrate, or start a newer one
├── ArchiveDamaged          an archive of events, or what should go into one, is not what was sealed
├── BrokerUnavailable       the message broker could not be reached; nothing was lost
└── EmbeddedServerError     the private PostgreSQL or Valkey did not start
"""

from __future__ import annotations

from collections.abc import Mapping


class BillingError(Exception):
    """The root: whatever Maewol raises on purpose."""


class InvalidInput(BillingError):
    """Bad data from outside.

    `field` and `value` say where (the value already masked if it is secret), `remedy` what to do.
    """

    def __init__(self, field: str, value: object, problem: str, remedy: str = "") -> None:
        self.field = field
        self.value = value
        self.problem = problem
        self.remedy = remedy
        text = f"{field}={value!r}: {problem}"
        super().__init__(f"{text}. {remedy}" if remedy else text)


class InvalidSetting(InvalidInput):
    """A setting that is wrong; the process must not start."""


class NotFound(BillingError):
    """There is no such thing in the book, or at the gateway."""


class Conflict(BillingError):
    """The request contradicts what the book already holds; nothing was changed."""


class Unconfirmed(Conflict):
    """The gateway does not vouch for what the book should hold; nothing was changed."""

    def __init__(self, field: str, value: object, problem: str, remedy: str) -> None:
        self.field = field
        self.value = value
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{field}={value!r}: {problem}. {remedy}")


class TransitionRefused(BillingError):
    """A status cannot follow another (see the transition tables in the domain)."""


class GatewayError(BillingError):
    """The gateway could not be asked. Nothing may be concluded about any payment."""


class GatewayUnavailable(GatewayError):
    """No answer, or none that can be used: network, time-out, 5xx, nonsense."""


class AnswerUnusable(GatewayUnavailable):
    """The gateway is not down: it answered, and nothing can be made of that."""


class RowsUnreadable(GatewayUnavailable):
    """Some rows of a list could not be read; all others were given."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = problems
        imp_uid, problem = next(iter(problems.items()))
        super().__init__(f"look-up: {len(problems)} rows unread, such as {imp_uid}: {problem}")


class GatewayRefused(GatewayError):
    """The gateway answered and refused us: wrong key, blocked address, missing contract."""


class SchemaMismatch(BillingError):
    """The book's schema lacks what this version needs, or has left it behind."""


class EmbeddedServerError(BillingError):
    """A private server for one machine did not start or stop."""


class ArchiveDamaged(BillingError):
    """Nothing is removed from the book on the word of a file that is not what it should be."""

    def __init__(self, name: str, problem: str) -> None:
        self.name = name
        self.problem = problem
        super().__init__(f"{name} {problem}")


class BrokerUnavailable(BillingError):
    """The message broker could not be reached. Nothing is lost: the database is the truth."""
