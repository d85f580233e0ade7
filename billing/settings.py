"""Settings: one class, read from the environment or `.env`, all checked before anything starts.

Every name carries the prefix `MAEWOL_`. A secret `X` may also come from a file, by `X_FILE`.
"""

from __future__ import annotations

import difflib
import ipaddress
import logging
import os
import re
import ssl
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from billing.domain.attempt import check_prefix
from billing.domain.calendar import GATEWAY_MARGIN_DAYS, SEOUL, CalendarPolicy
from billing.domain.errors import InvalidInput, InvalidSetting
from billing.domain.money import MINIMUM_CHARGE, Won
from billing.domain.order import Offer
from billing.domain.plan import (
    LONGEST_RETRY_SOON,
    MOST_ATTEMPTS,
    MOST_ATTEMPTS_PER_DAY,
    Cron,
    PlanPolicy,
)
from billing.signing import MAKE_ONE, check_receiver, signing_keys

PREFIX = "MAEWOL_"
# The request's deadline, then this long to write the record, must fit in the lease.
RECORD_BUDGET_SECONDS = 10
# Inquiries are made by a tick; two of them fit in this much of the closing margin.
TWO_INQUIRIES_SECONDS = 120
# A morning of the last day is always left.
LONGEST_MARGIN_MINUTES = 12 * 60
MINUTES_A_DAY = 24 * 60
# So alike are two names of which one is taken for a slip in the other: a letter or two, a plural.
_LIKE = 0.85

_SECRETS = frozenset(
    {
        "DATABASE_URL",
        "BROKER_URL",
        "SENTINEL_PASSWORD",
        "PORTONE_IMP_KEY",
        "PORTONE_IMP_SECRET",
        "NOTICE_SECRET",
        "API_TOKEN",
        "CONSOLE_PASSWORD",
        "INSTALLATION_KEY",
        "SENTRY_DSN",
        "FLOWER_PASSWORD",
    }
)


def is_secret(name: str) -> bool:
    """Whether a setting, named without its prefix, is masked everywhere and may be a file."""
    return name in _SECRETS


# Windows' editors begin a file with a mark that nobody sees: it is no part of the first line.
_CODING = "utf-8-sig"
_NO_TEXT, _SAVE_AGAIN = "the file is no text in UTF-8", "Save it again, with that encoding"


class Settings(BaseSettings):
    """Everything a merchant can set. `Settings.load()` is the way in: its errors are readable."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_file_encoding=_CODING,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    database_url: SecretStr | None = None
    database_failover: Literal["hold", "go_on"] = "hold"
    # Who runs the daemons, where that is not the owner of the schema: `maewol db upgrade` lets it.
    run_role: str | None = Field(None, pattern=r"^[a-z_][a-z0-9_]{0,62}$")
    broker_url: SecretStr | None = None
    # Where BROKER_URL names Sentinels: what they call the primary, and their own password.
    sentinel_master: str = Field("mymaster", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    sentinel_password: SecretStr | None = None
    # Who must have signed the broker's certificate, where it is not a public authority.
    broker_ca_file: Path | None = None
    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("maewol", appauthor=False))
    )

    portone_api_url: str = "https://api.iamport.kr"
    portone_imp_key: SecretStr | None = None
    portone_imp_secret: SecretStr | None = None
    portone_timeout_seconds: float = Field(60, gt=0, le=600)
    include_sandbox: bool = False
    portone_imp_code: str | None = Field(None, pattern=r"^[A-Za-z0-9_]{1,40}$")
    portone_sdk_url: str = "https://cdn.iamport.kr/v1/iamport.js"

    checkout_pg: str = Field("mobilians", pattern=r"^mobilians(\.[A-Za-z0-9_]{1,40})?$")
    checkout_amount: int | None = Field(None, ge=MINIMUM_CHARGE, le=10_000_000)
    checkout_order_name: str | None = Field(None, min_length=1, max_length=40)

    timezone: str = "Asia/Seoul"
    window_days: int = Field(5, ge=0, le=GATEWAY_MARGIN_DAYS)
    band_retry_days: int = Field(3, ge=0, le=GATEWAY_MARGIN_DAYS)
    charge_cron: str = "0 10 * * *"
    retry_cron: str = "0 10,18 * * *"
    scan_cron: str = "* * * * *"
    check_cron: str = "17 * * * *"
    reconcile_cron: str = "30 5 * * *"
    proof_dir: Path | None = None
    prune_cron: str = "40 3 * * *"
    retention_months: int = Field(24, ge=0, le=600)
    archive_dir: Path | None = None
    retry_soon_minutes: float = Field(30, ge=0, le=LONGEST_RETRY_SOON // timedelta(minutes=1))
    attempts_per_day: int = Field(2, ge=1, le=MOST_ATTEMPTS_PER_DAY)
    max_attempts: int = Field(8, ge=1, le=MOST_ATTEMPTS)
    close_margin_minutes: float = Field(30, gt=0, le=LONGEST_MARGIN_MINUTES)
    closing_soon_hours: float = Field(24, ge=0, le=144)
    declines_file: Path | None = None

    charges_per_second: float = Field(50, ge=0, le=10_000)
    canary_charges: int = Field(5, ge=0, le=1000)
    max_outstanding: int = Field(2000, ge=1, le=100_000)
    charge_batch: int = Field(50, ge=1, le=500)
    lease_seconds: float = Field(120, gt=0, le=3600)
    inquiry_settle_seconds: float = Field(120, gt=0, le=3600)
    gateway_visibility_seconds: float = Field(30, ge=0, le=600)

    merchant_uid_prefix: str = "mw"
    installation_key: SecretStr | None = None

    notice_url: str | None = None
    notice_secret: SecretStr | None = None
    api_token: SecretStr | None = None
    console_password: SecretStr | None = None
    # Proxies of ours in front of `maewol web`, by address or network, separated by commas.
    trusted_proxies: str = ""
    # Where people reach Flower, for the console's links to it.
    flower_url: str | None = None
    # Flower's, whose user is "maewol".
    flower_password: SecretStr | None = None

    log_format: Literal["json", "console"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    liveness_file: Path | None = None
    # Where errors are reported to; needs the extra `sentry`.
    sentry_dsn: SecretStr | None = None

    @classmethod
    def load(cls, **overrides: Any) -> Settings:
        """Read and check every setting. Raises `InvalidSetting` for the first wrong one."""
        try:
            return cls(**overrides)
        except ValidationError as error:
            raise _first_problem(error) from None
        except InvalidInput as error:
            raise InvalidSetting(error.field, error.value, error.problem, error.remedy) from None
        except UnicodeDecodeError:
            # Of secrets' files it is told by their names (`SecretFiles`).
            file = cls.model_config.get("env_file")
            raise InvalidSetting("settings", str(file), _NO_TEXT, _SAVE_AGAIN) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            env_settings,
            SecretFiles(settings_cls, dotenv_settings),
            dotenv_settings,
        )

    @field_validator(*sorted(name.lower() for name in _SECRETS))
    @classmethod
    def _not_blank(cls, value: SecretStr | None, info: Any) -> SecretStr | None:
        """A file of a secret that was made and never filled would let in whoever sends nothing."""
        if value is not None and not value.get_secret_value().strip():
            name = str(info.field_name).upper()
            raise InvalidSetting(
                name,
                "",
                "blank, or the file that holds it is empty",
                f"Fill it, or unset {PREFIX}{name} and {PREFIX}{name}_FILE",
            )
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        known = isinstance(value, str) and value.upper() in logging.getLevelNamesMapping()
        return str(value).upper() if known else value

    @field_validator("merchant_uid_prefix")
    @classmethod
    def _short_prefix(cls, value: str) -> str:
        return check_prefix(value)

    @field_validator("timezone")
    @classmethod
    def _korean_days(cls, value: str) -> str:
        try:
            zone = ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise InvalidSetting(
                "TIMEZONE", value, "no such time zone", "Use Asia/Seoul"
            ) from error
        # The gateway counts Korean days; any zone that disagrees about today's date is wrong.
        probes = (datetime(2026, month, 1, tzinfo=SEOUL) for month in range(1, 13))
        if any(probe.astimezone(zone).utcoffset() != probe.utcoffset() for probe in probes):
            raise InvalidSetting(
                "TIMEZONE",
                value,
                "its days are not Korean days, which the gateway counts",
                "Use Asia/Seoul",
            )
        return value

    @field_validator(
        "charge_cron", "retry_cron", "scan_cron", "check_cron", "reconcile_cron", "prune_cron"
    )
    @classmethod
    def _cron(cls, value: str, info: Any) -> str:
        name = str(info.field_name).upper()
        Cron.parse(value, field=name, for_each_day=True)
        return value

    @field_validator("retention_months")
    @classmethod
    def _longer_than_questions(cls, value: int) -> int:
        if value in (1, 2):
            raise InvalidSetting(
                "RETENTION_MONTHS",
                value,
                "too short: this month and the last are still reconciled and refunded",
                f"Set {PREFIX}RETENTION_MONTHS to 3 or more, or to 0, which keeps all",
            )
        return value

    @field_validator("portone_api_url", "portone_sdk_url")
    @classmethod
    def _https_unless_loopback(cls, value: str, info: Any) -> str:
        try:
            parts = urlsplit(value)
            # Spaces and control characters are read in more than one way; what follows an address
            # of the API is its path. (The port is read on demand.)
            good = parts.port != 0 and value.isprintable() and " " not in value
            good &= info.field_name != "portone_api_url" or not (parts.query or parts.fragment)
        except ValueError:
            good = False
        if good and "@" not in parts.netloc and _is_safe(parts):
            return value.rstrip("/")
        raise InvalidSetting(
            str(info.field_name).upper(),
            "********" if "@" in value else value,
            "not an https address, or one with a password in it",
            "Use https://…; plain http is for a gateway on this machine only",
        )

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: str) -> str:
        try:
            networks = [
                ipaddress.ip_network(one.strip()) for one in value.split(",") if one.strip()
            ]
        except ValueError as error:
            raise InvalidSetting(
                "TRUSTED_PROXIES", value, f"no address or network ({error})", "Use 10.0.0.0/24"
            ) from None
        if any(network.prefixlen == 0 for network in networks):
            # Whoever is believed may name any address as the customer's.
            raise InvalidSetting(
                "TRUSTED_PROXIES", value, "trusts everybody", "Name the proxy's own address"
            )
        return ",".join(str(network) for network in networks)

    @field_validator("flower_url")
    @classmethod
    def _a_link(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            good = parts.scheme in ("http", "https") and parts.hostname and not parts.username
        except ValueError:
            good = False
        if good and not parts.query and not parts.fragment:
            return value.rstrip("/")
        raise InvalidSetting(
            "FLOWER_URL",
            "********" if "@" in value else value,
            "not an address a browser can open, or one with a password in it",
            "Use http://127.0.0.1:5555 or https://…; a browser asks for the password itself",
        )

    @field_validator("flower_password")
    @classmethod
    def _one_password(cls, value: SecretStr | None) -> SecretStr | None:
        """Flower takes a comma for the beginning of another one."""
        if value is not None and not re.fullmatch(r"[^,\s]{8,}", value.get_secret_value()):
            raise InvalidSetting(
                "FLOWER_PASSWORD",
                "********",
                "shorter than 8 characters, or with a comma or a space in it",
                "Use `openssl rand -hex 24`",
            )
        return value

    @field_validator("sentry_dsn")
    @classmethod
    def _dsn(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = urlsplit(value.get_secret_value())
            loopback = parts.hostname in {"localhost", "127.0.0.1", "::1"}
            safe = parts.scheme == "https" or (parts.scheme == "http" and loopback)
            if not safe or not parts.hostname or not parts.username or not parts.path.strip("/"):
                raise InvalidSetting(
                    "SENTRY_DSN", "********", "not a DSN", "Use https://KEY@HOST/PROJECT"
                )
        return value

    @field_validator("notice_url")
    @classmethod
    def _receiver(cls, value: str | None) -> str | None:
        return None if value is None else check_receiver(value)

    @field_validator("notice_secret")
    @classmethod
    def _signing_secrets(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            signing_keys(value.get_secret_value())
        return value

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            scheme = value.get_secret_value().partition(":")[0]
            if scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
                raise InvalidSetting(
                    "DATABASE_URL",
                    f"{scheme}://…",
                    "not a PostgreSQL address",
                    "Use postgresql+psycopg://user:password@host/database",
                )
            _readable(value, "DATABASE_URL", _read_database_url)
        return value

    @field_validator("broker_url")
    @classmethod
    def _redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            scheme = value.get_secret_value().partition(":")[0]
            # Not `redis+socket`: Celery reads it, and our own clients do not.
            if scheme not in {"redis", "rediss", "sentinel"}:
                raise InvalidSetting(
                    "BROKER_URL",
                    f"{scheme}://…",
                    "not the address of a Redis-compatible server",
                    "Use redis://:password@host:6379/0",
                )
            # A list of Sentinels is separated by semicolons.
            addresses = value.get_secret_value().split(";")
            for address in addresses:
                _readable(SecretStr(address), "BROKER_URL", _read_broker_url)
                if not address.startswith(f"{scheme}://"):
                    raise InvalidSetting(
                        "BROKER_URL",
                        "********",
                        f"not every address of the list begins with {scheme}://",
                        "Use sentinel://:password@host:26379/0;sentinel://…",
                    )
            if len(addresses) > 1 and scheme != "sentinel":
                raise InvalidSetting(
                    "BROKER_URL",
                    "********",
                    "several servers that know nothing of each other",
                    "Use one address, or those of Sentinels: sentinel://…;sentinel://…",
                )
            if "ssl_" in value.get_secret_value().partition("?")[2]:
                raise InvalidSetting(
                    "BROKER_URL",
                    "********",
                    "asks for TLS of another kind; certificates are always verified",
                    "Use rediss://…, and BROKER_CA_FILE for an authority of your own",
                )
        return value

    @field_validator("broker_ca_file")
    @classmethod
    def _an_authority(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                ssl.create_default_context(cafile=str(value))
            except (OSError, ssl.SSLError) as error:
                raise InvalidSetting(
                    "BROKER_CA_FILE",
                    str(value),
                    f"holds no certificates that can be read ({type(error).__name__})",
                    "Name a file in PEM form",
                ) from None
        return value

    @model_validator(mode="after")
    def _relations(self) -> Settings:
        """The inequalities that the exactly-once protocol rests on, and what belongs together
        (docs/configuration.md)."""
        if self.notice_url is not None and self.notice_secret is None:
            raise InvalidSetting(
                "NOTICE_SECRET", None, "not set, but NOTICE_URL is: notices are signed", MAKE_ONE
            )
        deadline = self.portone_timeout_seconds
        _at_least(
            "LEASE_SECONDS",
            self.lease_seconds,
            deadline + RECORD_BUDGET_SECONDS,
            f"PORTONE_TIMEOUT_SECONDS ({deadline:g}) + {RECORD_BUDGET_SECONDS}",
        )
        _at_least(
            "INQUIRY_SETTLE_SECONDS",
            self.inquiry_settle_seconds,
            deadline + self.gateway_visibility_seconds,
            f"PORTONE_TIMEOUT_SECONDS ({deadline:g}) + GATEWAY_VISIBILITY_SECONDS"
            f" ({self.gateway_visibility_seconds:g})",
        )
        _at_least(
            "CLOSE_MARGIN_MINUTES",
            self.close_margin_minutes,
            (self.lease_seconds + self.inquiry_settle_seconds + TWO_INQUIRIES_SECONDS) / 60,
            f"LEASE_SECONDS ({self.lease_seconds:g}) + INQUIRY_SETTLE_SECONDS"
            f" ({self.inquiry_settle_seconds:g}) + two inquiries"
            f" ({TWO_INQUIRIES_SECONDS}), in minutes",
        )
        return self

    @model_validator(mode="after")
    def _often_enough(self) -> Settings:
        """A scan sees in time whatever is due on the last day, and what that left open."""
        scan = Cron.parse(self.scan_cron, field="SCAN_CRON")
        pause = scan.longest_pause.total_seconds() / 60
        settling = (self.lease_seconds + self.inquiry_settle_seconds) / 60
        least = settling + 2 * pause
        if pause > 1 and least > self.close_margin_minutes:
            every_minute = f"Set {PREFIX}SCAN_CRON='* * * * *'"
            possible = f"{every_minute}, or {PREFIX}CLOSE_MARGIN_MINUTES={least:g}"
            raise InvalidSetting(
                "SCAN_CRON",
                self.scan_cron,
                f"up to {pause:g} minutes pass between two of its scans; two of them, LEASE_SECONDS"
                f" and INQUIRY_SETTLE_SECONDS take longer than CLOSE_MARGIN_MINUTES"
                f" ({self.close_margin_minutes:g})",
                possible if least <= LONGEST_MARGIN_MINUTES else every_minute,
            )
        # Only then may a band have one day for its first attempt.
        first = Cron.parse(self.charge_cron, field="CHARGE_CRON").times[0] / 60
        last = MINUTES_A_DAY - self.close_margin_minutes
        one_day = 0 in (self.window_days, self.band_retry_days)
        if one_day and first <= last < first + pause:
            raise InvalidSetting(
                "CHARGE_CRON",
                self.charge_cron,
                f"too late on a band's last day: {last - first:g} minutes before the last start,"
                f" and up to {pause:g} minutes pass between two scans (SCAN_CRON)",
                "Use an earlier slot, such as '0 10 * * *'",
            )
        return self

    @model_validator(mode="after")
    def _something_to_sell(self) -> Settings:
        """The checkout page is on with the store's identification code; then it needs goods."""
        for name in ("checkout_amount", "checkout_order_name"):
            if self.portone_imp_code is not None and getattr(self, name) is None:
                raise InvalidSetting(
                    name.upper(),
                    None,
                    "not set, and PORTONE_IMP_CODE is: the checkout page has nothing to sell",
                    f"Set {PREFIX}{name.upper()}, or unset {PREFIX}PORTONE_IMP_CODE",
                )
        return self

    @cached_property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    @cached_property
    def plan(self) -> PlanPolicy:
        """When attempts may be planned, as the domain wants it."""
        return PlanPolicy(
            charge_cron=Cron.parse(self.charge_cron, field="CHARGE_CRON", for_each_day=True),
            retry_cron=Cron.parse(self.retry_cron, field="RETRY_CRON", for_each_day=True),
            retry_soon=timedelta(minutes=self.retry_soon_minutes),
            attempts_per_day=self.attempts_per_day,
            max_attempts=self.max_attempts,
            close_margin=timedelta(minutes=self.close_margin_minutes),
            zone=self.zone,
            calendar=CalendarPolicy(self.window_days, self.band_retry_days),
        )

    @cached_property
    def notice_keys(self) -> list[bytes]:
        """The keys that notices are signed with, the one in use first."""
        secret = self.notice_secret
        return [] if secret is None else signing_keys(secret.get_secret_value())

    @property
    def offer(self) -> Offer | None:
        """What the checkout page sells; None where it is off."""
        if self.portone_imp_code is None or self.checkout_amount is None:
            return None
        return Offer(Won(self.checkout_amount), self.checkout_order_name or "")

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    @property
    def settle(self) -> timedelta:
        return timedelta(seconds=self.inquiry_settle_seconds)

    @property
    def visibility(self) -> timedelta:
        return timedelta(seconds=self.gateway_visibility_seconds)

    @property
    def closing_soon(self) -> timedelta:
        return timedelta(hours=self.closing_soon_hours)

    @property
    def charge_deadline(self) -> timedelta:
        return timedelta(seconds=self.portone_timeout_seconds)


class SecretFiles(PydanticBaseSettingsSource):
    """`MAEWOL_X_FILE` names a file whose content is the secret `X` (Docker and systemd secrets)."""

    def __init__(
        self, settings_cls: type[BaseSettings], dotenv: PydanticBaseSettingsSource
    ) -> None:
        super().__init__(settings_cls)
        written = dotenv.env_vars if isinstance(dotenv, DotEnvSettingsSource) else {}
        # The names in `.env` come in small letters; the environment stands before the file.
        in_file = {name.upper(): path for name, path in written.items()}
        self._named = {**in_file, **os.environ}

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        name = field_name.upper()
        path = self._named.get(f"{PREFIX}{name}_FILE") if name in _SECRETS else None
        if not path:
            return None, field_name, False
        try:
            return Path(path).read_text(encoding=_CODING).strip(), field_name, False
        except OSError as error:
            raise InvalidSetting(
                f"{name}_FILE", path, f"cannot be read ({type(error).__name__})", "Check the path"
            ) from error
        except UnicodeDecodeError:
            # Without the error: it holds what was read.
            raise InvalidSetting(f"{name}_FILE", path, _NO_TEXT, _SAVE_AGAIN) from None

    def __call__(self) -> dict[str, Any]:
        found = (
            (name, self.get_field_value(field, name)[0])
            for name, field in self.settings_cls.model_fields.items()
        )
        return {name: value for name, value in found if value is not None}


def effective(settings: Settings) -> Iterator[tuple[str, str]]:
    """Every setting with its value, secrets masked: what `doctor` shows."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        yield name.upper(), "********" if isinstance(value, SecretStr) else str(value)


def misspelt() -> dict[str, str]:
    """Variables that no setting reads, by the one that was probably meant, both with the prefix.

    Only what comes near a setting: names with our prefix may be somebody else's, as those that
    Kubernetes gives each container for a service `maewol-web`.
    """
    known = {name.upper() for name in Settings.model_fields}
    known |= {f"{name}_FILE" for name in _SECRETS}
    written = {name.upper() for name in DotEnvSettingsSource(Settings).env_vars}
    found: dict[str, str] = {}
    for name in sorted(written | {name.upper() for name in os.environ}):
        bare = name.removeprefix(PREFIX)
        if bare == name or bare in known:
            continue
        # A file is read for a secret only.
        if bare.removesuffix("_FILE") in known:
            near = [bare.removesuffix("_FILE")]
        else:
            near = difflib.get_close_matches(bare, known, 1, _LIKE)
        if near:
            found[name] = PREFIX + near[0]
    return found


def _is_safe(parts: SplitResult) -> bool:
    """https, or a server on this machine."""
    loopback = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and loopback)
    )


def _readable(value: SecretStr, name: str, read: Callable[[str], object]) -> None:
    """Raises `InvalidSetting` for an address that the library behind it could not read."""
    try:
        read(value.get_secret_value())
    except ValueError:
        raise InvalidSetting(
            name,
            "********",
            "not an address (a port or a database that is no number, an open bracket?)",
            "Write special characters of user and password as %XX",
        ) from None


def _read_database_url(value: str) -> object:
    # Here, since it takes time to load and most calls without a database never need it.
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(value)
    except ArgumentError:
        raise ValueError from None


def _read_broker_url(value: str) -> object:
    parts = urlsplit(value)
    # The number of a database, which Celery and our own clients take for one.
    return parts.port, int(parts.path.strip("/") or 0)


def _at_least(name: str, value: float, least: float, because: str) -> None:
    if value < least:
        raise InvalidSetting(
            name, value, f"must be at least {because} = {least:g}", f"Set {PREFIX}{name}={least:g}"
        )


def _first_problem(error: ValidationError) -> InvalidSetting:
    """The first wrong setting of a validation, with its value masked where it is secret."""
    first = error.errors(include_url=False)[0]
    name = "_".join(str(part) for part in first["loc"]).upper()
    value = "********" if name in _SECRETS else first["input"]
    problem = re.sub(r"^Input should be", "should be", first["msg"])
    return InvalidSetting(name, value, problem, f"Correct {PREFIX}{name}")
