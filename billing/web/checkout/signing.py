"""An order in the hands of a browser: signed, so that it comes back as it left."""

from __future__ import annotations

from itsdangerous import BadData, URLSafeTimedSerializer
from pydantic import SecretStr

from billing.domain.errors import InvalidInput, InvalidSetting
from billing.domain.order import Order

# A customer who comes back to the page later than this asks the shop.
GOOD_FOR_SECONDS = 24 * 3600
_LONGEST = 1000
_SALT = "maewol checkout order"


class Orders:
    """Signs with the store's own secret: every process of the edge has the same one."""

    def __init__(self, secret: SecretStr | None) -> None:
        if secret is None:
            raise InvalidSetting(
                "PORTONE_IMP_SECRET",
                None,
                "not set, and the checkout page asks the gateway about payments",
                "Set MAEWOL_PORTONE_IMP_SECRET to the store's REST API secret",
            )
        self._signer = URLSafeTimedSerializer(secret.get_secret_value(), salt=_SALT)

    def signed(self, order: Order) -> str:
        """The order as text that fits an address. There is nothing personal in it."""
        return str(self._signer.dumps(order.as_json()))

    def read(self, text: str) -> Order:
        """The order that was signed. Raises `InvalidInput` for any other text, and an old one."""
        if len(text) > _LONGEST:
            raise _foreign()
        try:
            return Order.from_json(self._signer.loads(text, max_age=GOOD_FOR_SECONDS))
        except (BadData, ValueError, TypeError):
            raise _foreign() from None


def _foreign() -> InvalidInput:
    return InvalidInput("order", "…", "is not an order of this page, or too old", "Begin again")
