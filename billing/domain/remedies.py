"""What a person can do about each difference, in English and Korean."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from billing.domain.cycle import CycleStatus
from billing.domain.reconciliation import SURPLUS, Difference, DifferenceKind
from billing.domain.refund import REFUSED_NEXT_MONTH


@dataclass(frozen=True, slots=True)
class Remedy:
    """The same advice in two languages."""

    en: str
    ko: str


_COUNT_IT = Remedy(
    "It counts as this month's payment: `maewol reconcile --apply`, or the next daily run.",
    "그 달의 결제로 인정됩니다. `maewol reconcile --apply`를 실행하거나 다음 일일 대사를"
    " 기다리십시오.",
)
_COUNTS_LATER = Remedy(
    "Nothing: it is found before the charge and counts as that month's payment. Find out who"
    " charges this key beside Maewol.",
    "조치할 것 없음: 결제 직전의 조회에서 발견되어 그 달의 결제로 인정됩니다. 이 빌링키를 누가 따로"
    " 결제하는지 확인하십시오.",
)
_LOOK = Remedy(
    "Compare the gateway's console with `maewol cycles`; nothing is changed by itself.",
    "포트원 콘솔의 결제 내역과 `maewol cycles`를 비교하십시오. 자동으로 바뀌는 것은 없습니다.",
)

_FIRST_CANCELLED = Remedy(
    f"The payment that registered this billing key was given back. {REFUSED_NEXT_MONTH[0]}",
    f"빌링키를 등록한 최초 결제가 취소되었습니다. {REFUSED_NEXT_MONTH[1]}",
)

_REMEDIES = {
    DifferenceKind.NOT_ENROLLED: Remedy(
        "The customer registered, but nobody enrolled the key: without a payment next month it is"
        " lost. Enrol it with `maewol subscription add`.",
        "고객은 등록했지만 구독이 만들어지지 않았습니다. 다음 달 결제가 없으면 빌링키를 잃습니다."
        " `maewol subscription add`로 등록하십시오.",
    ),
    DifferenceKind.STRANGER: Remedy(
        "A key that this book does not know is being charged in this store. If it is one of yours,"
        " enrol it; if another system charges it, leave it there and only there.",
        "이 장부에 없는 빌링키가 같은 상점에서 결제되고 있습니다. 우리 고객이면 등록하고, 다른"
        " 시스템이 결제하는 것이면 그 시스템에서만 결제하게 두십시오.",
    ),
    DifferenceKind.CANCELLED: Remedy(
        "The payment was given back outside Maewol. `maewol reconcile --apply` or the next daily"
        f" run marks the month refunded. {REFUSED_NEXT_MONTH[0]}",
        "결제가 Maewol 밖에서 취소되었습니다. `maewol reconcile --apply` 또는 다음 일일 대사가 그"
        f" 달을 환불로 표시합니다. {REFUSED_NEXT_MONTH[1]}",
    ),
    DifferenceKind.FAILED: Remedy(
        "The book says paid, the gateway says failed: no money came. Ask PortOne's support about"
        " this imp_uid before anything else.",
        "장부는 결제 완료, 결제사는 실패입니다. 대금이 들어오지 않았습니다. 다른 조치보다 먼저 이"
        " imp_uid를 포트원에 문의하십시오.",
    ),
    DifferenceKind.MISSING: Remedy(
        "The gateway does not know this payment. Usually the credentials are those of another"
        " store,"
        " or INCLUDE_SANDBOX is wrong; else ask PortOne's support.",
        "결제사에 이 결제가 없습니다. 대개 다른 상점의 API 키이거나 INCLUDE_SANDBOX 설정이 잘못된"
        " 경우입니다. 둘 다 아니면 포트원에 문의하십시오.",
    ),
    DifferenceKind.NOT_FINAL: Remedy(
        "The gateway has not finished this payment. Look again tomorrow; if it stays, ask PortOne.",
        "결제사에서 아직 확정되지 않은 결제입니다. 내일 다시 확인하고, 그대로면 포트원에"
        " 문의하십시오.",
    ),
    DifferenceKind.AMOUNT: Remedy(
        "The amounts differ, so it does not count as this month's payment. Find out who charged it;"
        " within its month it can be refunded whole with `maewol refund`.",
        "금액이 달라 그 달의 결제로 인정하지 않습니다. 누가 결제했는지 확인하십시오. 결제한 달"
        " 안에는 `maewol refund`로 전액 환불할 수 있습니다.",
    ),
    DifferenceKind.CUSTOMER: Remedy(
        "The payment carries another customer's key or another name than the book says."
        " Nothing is changed by itself: compare both in the gateway's console.",
        "결제의 고객 또는 주문번호가 장부와 다릅니다. 자동으로 바뀌는 것은 없으니 포트원"
        " 콘솔에서 비교하십시오.",
    ),
    DifferenceKind.PARTLY_CANCELLED: Remedy(
        "Part of the payment was given back, which phone billing does not know. Ask PortOne whether"
        " next month's payment will be accepted.",
        "일부만 취소되었습니다. 휴대폰 결제에는 없는 일이므로, 다음 달 결제가 되는지 포트원에"
        " 문의하십시오.",
    ),
    DifferenceKind.NOT_REFUNDED: Remedy(
        "The book says refunded, the gateway still holds the money. Cancel it in PortOne's console"
        " within its month, or pay it back by transfer.",
        "장부는 환불, 결제사는 결제 상태입니다. 결제한 달 안에 포트원 콘솔에서 취소하거나 계좌로"
        " 환불하십시오.",
    ),
    DifferenceKind.SANDBOX: Remedy(
        "A test payment among live ones (or the reverse). Check the channel and INCLUDE_SANDBOX;"
        " one"
        " book must see only one kind.",
        "실결제와 테스트 결제가 섞였습니다. 채널과 INCLUDE_SANDBOX를 확인하십시오. 장부 하나에는"
        " 한 종류만 있어야 합니다.",
    ),
    DifferenceKind.SCHEDULED: Remedy(
        "The gateway itself will charge this key: a second charger. Unschedule it there"
        " (POST /subscribe/payments/unschedule).",
        "결제사 예약 결제가 이 빌링키에 걸려 있습니다(이중 결제 위험). 결제사에서 예약을"
        " 취소하십시오(POST /subscribe/payments/unschedule).",
    ),
}


def remedy(found: Difference, now: datetime, zone: ZoneInfo) -> Remedy:
    """The advice for one difference at this moment."""
    if found.kind in SURPLUS:
        return _give_back(found, now, zone)
    if found.countable:
        return _COUNT_IT
    if found.kind is DifferenceKind.CANCELLED and not found.takes_back:
        return _FIRST_CANCELLED
    if found.kind in _REMEDIES:
        return _REMEDIES[found.kind]
    if found.cycle_status is None and found.subscription_id is not None:
        return _COUNTS_LATER
    if found.cycle_status == CycleStatus.REFUNDED:
        return Remedy(
            "The month was refunded, and this payment stands: keep it, it may save the billing"
            " key.",
            "환불된 달에 남아 있는 결제입니다. 빌링키를 살릴 수 있으니 그대로 두십시오.",
        )
    return _LOOK


def _give_back(found: Difference, now: datetime, zone: ZoneInfo) -> Remedy:
    kept = f" Keep {found.keep}." if found.keep else ""
    kept_ko = f" 남겨 둘 결제: {found.keep}." if found.keep else ""
    if found.refund_by is None or now >= found.refund_by:
        return Remedy(
            f"The customer paid too much, and the gateway takes back nothing after the month's end:"
            f" pay it back by transfer.{kept}",
            "고객이 더 낸 결제이며, 결제한 달이 지나 취소할 수 없습니다."
            f" 계좌로 환불하십시오.{kept_ko}",
        )
    last = f"{found.refund_by.astimezone(zone):%Y-%m-%d %H:%M}"
    command = f"maewol refund {found.merchant_uid} --imp-uid {found.imp_uid}"
    return Remedy(
        f"The customer paid too much: `{command}` before {last} (Seoul).{kept}",
        f"고객이 더 낸 결제입니다. {last}(서울) 전에 `{command}`로 환불하십시오.{kept_ko}",
    )
