"""What the customer can do so that the month is paid, in words for the customer.

The advice in the table of declines is for the merchant; this may be shown or sent as it stands.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from billing.domain.calendar import SEOUL
from billing.domain.declines import DeclineClass
from billing.domain.remedies import Remedy

REGISTER_ANEW: Final = Remedy(
    "Automatic phone payment has ended. Please register again in the payment window to go on.",
    "휴대폰 자동결제가 종료되었습니다. 계속 이용하시려면 결제창에서 다시 등록해 주세요.",
)
# For the merchant, beside the above.
TELL_TO_REGISTER: Final = Remedy(
    "This billing key is never charged again. Ask the customer to register again; the new"
    " registration has a new customer_uid.",
    "이 빌링키로는 더 이상 결제되지 않습니다. 고객에게 다시 등록하도록 안내하십시오. 새 등록에는"
    " 새 customer_uid를 사용합니다.",
)
NOT_DECLINED: Final = Remedy(
    "No attempt was refused, and none succeeded. `maewol why` tells what it waits for.",
    "거절된 시도도, 성공한 시도도 없습니다. 이유는 `maewol why`로 확인하십시오.",
)
_WAIT: Final = Remedy(
    "The payment did not go through. There is nothing you need to do: it is tried again"
    " automatically.",
    "결제가 완료되지 않았습니다. 자동으로 다시 시도하므로 따로 하실 일은 없습니다.",
)
_WE_LOOK: Final = Remedy(
    "The payment did not go through. There is nothing you need to do: we are looking into it.",
    "결제가 완료되지 않았습니다. 저희가 확인하고 있으므로 따로 하실 일은 없습니다.",
)


def for_customer(decline_class: DeclineClass | None, last_chance_at: datetime) -> Remedy:
    """The customer's part after a refusal of a class (None: there was none)."""
    until = f"{last_chance_at.astimezone(SEOUL):%Y-%m-%d %H:%M}"
    match decline_class:
        case DeclineClass.AGAIN_SOON | DeclineClass.NOT_TODAY:
            return _WAIT
        case DeclineClass.NOT_THIS_MONTH:
            return Remedy(
                "Your monthly limit for phone payments is used up. Please have your carrier raise"
                f" it (its app, or call 114 from your phone) before {until} (Korean time).",
                "휴대폰 결제 월 한도를 초과했습니다."
                f" {until} 전에 통신사 앱 또는 114에서 한도를 높여 주세요.",
            )
        case DeclineClass.CUSTOMER_MUST_ACT:
            return Remedy(
                "Your carrier does not allow phone payments for your number at present (an unpaid"
                " bill, a block or a missing consent). Please settle it with your carrier (its app,"
                f" or call 114 from your phone) before {until} (Korean time).",
                "현재 통신사에서 휴대폰 결제가 허용되지 않습니다(요금 미납, 결제 차단, 동의 누락 등"
                f"). {until} 전에 통신사 앱 또는 114에서 해결해 주세요.",
            )
        case DeclineClass.REGISTER_ANEW | DeclineClass.CHAIN_BROKEN:
            return REGISTER_ANEW
        case _:
            return _WE_LOOK
