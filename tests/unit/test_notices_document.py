"""docs/notices.md: its table is the domain's, its samples run, in both languages."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from billing.domain.delivery import TRIED_FOR, WAITS
from billing.domain.notice import News, NoticeKind, Trial, body
from tests.merchant import SECRET

DOCUMENTS = [Path(__file__).parents[2] / "docs" / name for name in ("notices.md", "notices.ko.md")]
both = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


@both
def test_the_table_names_every_kind_and_field(document: Path) -> None:
    told: dict[str, set[str]] = {}
    for row in re.findall(
        r"^\| `([a-z]+\.[a-z_]+)` \|[^|]*\|([^|]*)\|$", document.read_text(), re.M
    ):
        told[row[0]] = set(re.findall(r"`([a-z_]+)`", row[1]))
    assert told == {str(kind): _fields(kind) for kind in NoticeKind}


def _fields(kind: NoticeKind) -> set[str]:
    def below(found: type[News]) -> set[str]:
        own = {one.name for one in fields(found)} if found.__dict__.get("kind") is kind else set()
        return own.union(*(below(one) for one in found.__subclasses__()))

    return below(News) - {"customer_uid"}


@both
def test_the_waits_are_those_of_the_domain(document: Path) -> None:
    minutes = [wait // timedelta(minutes=1) for wait in WAITS if wait < timedelta(hours=1)]
    hours = [wait // timedelta(hours=1) for wait in WAITS if wait >= timedelta(hours=1)]
    assert (minutes, hours, TRIED_FOR.days) == ([1, 2, 5, 15, 30], [1, 2, 4, 8, 12], 3)
    numbers = re.findall(r"\d+", document.read_text().partition("`2xx`")[2].partition("410")[0])
    assert " ".join(map(str, minutes + hours)) in " ".join(numbers)


@both
@pytest.mark.parametrize("sample", [0, 1], ids=["library", "by hand"])
class TestSamples:
    def test_a_genuine_notice_is_read(self, document: Path, sample: int) -> None:
        receive, (headers, raw) = _sample(document, sample), signed()
        assert receive(headers, raw)["type"] == "maewol.test"

    def test_one_of_two_signatures_is_enough(self, document: Path, sample: int) -> None:
        receive, (headers, raw) = _sample(document, sample), signed()
        headers["webhook-signature"] = f"v1,{'A' * 43}= {headers['webhook-signature']}"
        assert receive(headers, raw)["type"] == "maewol.test"

    @pytest.mark.parametrize("what", ["body", "id", "time", "secret", "age"])
    def test_any_other_is_refused(self, document: Path, sample: int, what: str) -> None:
        receive = _sample(document, sample)
        old = timedelta(minutes=6) if what == "age" else timedelta(0)
        headers, raw = signed(at=datetime.now(UTC) - old)
        match what:
            case "body":
                raw += b" "
            case "id":
                headers["webhook-id"] += "0"
            case "time":
                headers["webhook-timestamp"] = str(int(headers["webhook-timestamp"]) + 1)
            case "secret":
                headers, raw = signed(Webhook(b"another secret of thirty-two byt"))
        with pytest.raises(Exception, match=r".") as caught:
            receive(headers, raw)
        assert type(caught.value).__name__ in {"WebhookVerificationError", "ValueError"}


def signed(
    signer: Webhook | None = None, at: datetime | None = None
) -> tuple[dict[str, str], bytes]:
    at = at or datetime.now(UTC)
    raw = body(Trial.kind, at, Trial().data())
    signature = (signer or Webhook(SECRET)).sign("mw_1_ab", at, raw.decode())
    return {
        "webhook-id": "mw_1_ab",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
    }, raw


def _sample(document: Path, number: int) -> Callable[..., Any]:
    samples = re.findall(r"```python\n(.*?)```", document.read_text(), re.S)
    assert len(samples) == 2
    namespace: dict[str, Any] = {"SECRET": SECRET}
    exec(samples[number], namespace)  # noqa: S102 - our own document
    receive: Callable[..., Any] = namespace["receive"]
    return receive
