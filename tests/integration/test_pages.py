"""What the pages tell a merchant to type is typed, in a shop that runs, and does what they say.

The shop is the one of docs/quickstart.md, which has a test of its own. A page's words for what the
reader knows (`CUSTOMER_UID`, `billing.example.com`) are replaced; nothing else of a command is.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from billing.domain.calendar import SEOUL
from billing.embedded import running
from tests import heard
from tests.builders import a_month_before, chargeable_now
from tests.console_blocks import steps, terminal
from tests.containers import ROOT, quiet_ports, until
from tests.merchant import Merchant, a_merchant

# The slowest wait is for a charge: a few ticks of five seconds on a busy machine.
pytestmark = pytest.mark.timeout(600)

TOKEN = "a-token-of-this-test-alone"
PLAN = "Monthly plan"
# Commands that are not typed here, each with where they are.
ELSEWHERE = {
    "docker": "no container engine here; test_deployment runs what Compose would",
    "make": "the same simulation, for hours, and tests of its own in tests/simulation",
    "openssl": "makes a secret; the shop has one",
}


@dataclass
class Shop:
    """A merchant's folder, beside a sandbox and a system that receives notices."""

    folder: Path
    gateway: str
    ports: Mapping[str, int]
    merchant: Merchant
    environ: dict[str, str]
    # One moment: the gateway and the file say the same of a customer, also at midnight.
    a_month_ago: str = field(
        default_factory=lambda: a_month_before(chargeable_now()).isoformat(), init=False
    )

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.ports['web']}"

    def typed(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command, as at a shell in the shop's folder; nobody sits at a terminal."""
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command}"],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=180,
        )

    def asked(self, command: str) -> Any:
        """What one of our commands answers as JSON."""
        return json.loads(self.does(f"maewol {command} --json"))

    def does(self, command: str) -> str:
        """What a command prints that must succeed."""
        done = self.typed(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def register(self, uid: str) -> dict[str, str]:
        """A customer's first payment at the gateway, a month ago; its ids."""
        chargeable_now()
        wish = {"customer_uid": uid, "amount": 9900, "name": PLAN, "paid_at": self.a_month_ago}
        answer = httpx.post(f"{self.gateway}/sandbox/customers", json=[wish]).raise_for_status()
        made: dict[str, str] = answer.json()["customers"][0]
        return made

    def lines(self, *uids: str, plan: str = PLAN) -> None:
        """A file for import, as another system had these."""
        lines = [f"{uid},9900,{plan},{self.a_month_ago}\n" for uid in uids]
        header = "customer_uid,amount,order_name,initial_paid_at\n"
        (self.folder / "in.csv").write_text(header + "".join(lines), encoding="utf-8")

    def take_over(self, uid: str, plan: str = PLAN) -> None:
        """Import one, and have a notice of it."""
        self.lines(uid, plan=plan)
        self.does("maewol subscription import in.csv --notify")

    def wait(self, true: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until something is true; the logs of what runs say why it is not."""
        until(true, self._logs, seconds)

    def _logs(self) -> str:
        logs = sorted(self.folder.glob("*.log"))
        return "".join(f"\n-- {one.name}\n{one.read_text('utf-8')[-4000:]}" for one in logs)

    def months(self, uid: str) -> list[dict[str, Any]]:
        return [one for one in self.asked("cycles") if one["customer_uid"] == uid]

    def is_paid(self, uid: str) -> bool:
        return [one["status"] for one in self.months(uid)] == ["paid"]

    def run(
        self, page: str, means: Mapping[str, str], ends: Mapping[str, int] | None = None
    ) -> dict[str, str]:
        """Type every command of a page, in order; what each said. `ends`: the exit codes of those
        that do not end with 0."""
        said: dict[str, str] = {}
        for step in steps((ROOT / page).read_text("utf-8")):
            if step.command.split()[0] in ELSEWHERE:
                continue
            command = step.command
            for word, meant in means.items():
                command = command.replace(word, meant)
            done = self.typed(command)
            told = f"{command}\n{done.stdout}\n{done.stderr}"
            assert done.returncode == (ends or {}).get(step.command, 0), told
            said[step.command] = done.stdout + done.stderr
        assert said
        return said


@contextlib.contextmanager
def opened() -> Iterator[tuple[Shop, contextlib.ExitStack]]:
    """A shop with its gateway, in which nothing of ours runs yet."""
    ports = quiet_ports(("web", "flower"))
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="mw-", ignore_cleanup_errors=True)
        )
        folder = Path(home)
        folder.chmod(0o755)
        merchant = stack.enter_context(a_merchant())
        environ = {**terminal(), "MAEWOL_API_TOKEN": TOKEN, "API_TOKEN": TOKEN}
        sandbox = "maewol sandbox --port 0 --data gateway.db"
        gateway = stack.enter_context(started(sandbox, folder, environ, listens=True))
        (folder / ".env").write_text(_settings(gateway, merchant), encoding="utf-8")
        yield Shop(folder, gateway, ports, merchant, environ), stack


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with opened() as (made, stack):
        ports = f"--web-port {made.ports['web']} --flower-port {made.ports['flower']}"
        stack.enter_context(started(f"maewol up {ports}", made.folder, made.environ))
        made.wait(lambda: made.typed("maewol doctor > doctor.log").returncode == 0)
        yield made


@contextlib.contextmanager
def started(
    command: str, folder: Path, environ: dict[str, str], *, listens: bool = False
) -> Iterator[str]:
    """A program of the page that stays; with `listens` the address that it says first."""
    log = folder / f"{command.split()[1]}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command.split(),
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE if listens else file,
            stderr=file,
            encoding="utf-8",
        )
    try:
        yield json.loads(heard.until(process.stdout, "\n"))["url"] if listens else ""
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()


def _settings(gateway: str, merchant: Merchant) -> str:
    return f"""\
MAEWOL_DATA_DIR=book
MAEWOL_PORTONE_API_URL={gateway}
MAEWOL_PORTONE_IMP_KEY=any
MAEWOL_PORTONE_IMP_SECRET=any
MAEWOL_LOG_FORMAT=console
MAEWOL_CHARGE_CRON=* * * * * */5
MAEWOL_RETRY_CRON=* * * * * */5
MAEWOL_RETRY_SOON_MINUTES=0
MAEWOL_SCAN_CRON=* * * * * */5
MAEWOL_NOTICE_URL={merchant.url}
MAEWOL_NOTICE_SECRET={merchant.secret!s}
MAEWOL_ARCHIVE_DIR=archive
"""


@pytest.mark.skipif(shutil.which("curl") is None, reason="the pages' commands use curl")
@pytest.mark.parametrize(("page", "uid"), [("docs/api.md", "dana"), ("docs/checkout.md", "eve")])
def test_enrolling_through_the_api(shop: Shop, page: str, uid: str) -> None:
    paid = shop.register(uid)
    said = shop.run(
        page,
        {
            "https://billing.example.com": shop.web,
            "https://billing.internal": shop.web,
            "imp_123456789012": paid["imp_uid"],
            "order-1001": paid["merchant_uid"],
            "order-1": paid["merchant_uid"],
            "customer-1": uid,
            "curl ": "curl --fail-with-body ",
        },
    )
    assert f'"customer_uid":"{uid}"' in list(said.values())[-1].replace(" ", "")
    assert shop.asked(f"subscription show {uid}")["status"] == "active"


def test_notices(shop: Shop) -> None:
    shop.register("gwen")
    shop.take_over("gwen")
    shop.wait(lambda: "subscription.enrolled" in shop.merchant.types())
    shop.wait(lambda: shop.asked("notices --status delivered") != [])
    number = str(shop.asked("notices --status delivered")[0]["id"])
    before = len(shop.merchant.taken)
    shop.run("docs/notices.md", {"1234": number})
    shop.wait(lambda: len(shop.merchant.taken) > before)


def test_what_a_year_would_bring(shop: Shop) -> None:
    shop.register("hana")
    shop.take_over("hana")
    today = datetime.now(SEOUL).date()
    said = shop.run(
        "docs/simulation.md",
        {
            # A month stands for the year: what is shown is the command.
            "--months 12": "--months 1",
            "2026-12-28": str(today + timedelta(days=3)),
            "2026-12-31": str(today + timedelta(days=6)),
        },
    )
    assert len(said) == 5
    assert "hana" in shop.typed("maewol due --days 60").stdout + shop.typed("maewol cycles").stdout


def test_operating(shop: Shop) -> None:
    for uid in ("ida", "jane"):
        shop.register(uid)
        shop.take_over(uid)
    shop.register("kim")
    shop.take_over("kim", plan="Another plan")
    shop.wait(lambda: shop.is_paid("ida") and shop.is_paid("jane"))
    shop.wait(lambda: "facts_mismatch" in [one["held"] for one in shop.months("kim")])
    of_ida = shop.months("ida")[0]["attempts"][-1]["merchant_uid"]
    page = (ROOT / "docs/operating.md").read_text("utf-8")
    assert "exit code 1 says that something is wrong and stays so" in " ".join(page.split())

    said = shop.run(
        "docs/operating.md",
        {
            "MERCHANT_UID": of_ida,
            "subscription cancel CUSTOMER_UID": "subscription cancel jane",
            "subscription correct CUSTOMER_UID": "subscription correct kim",
            "verify FOLDER": "verify archive",
        },
        {
            "maewol subscription correct CUSTOMER_UID          # says what differs, and asks": 1,
            # A shop of this minute has none: test_archive_files looks into real ones.
            "maewol archive verify FOLDER"
            "    # every file there, whole, and what this book has sealed": 2,
        },
    )

    assert any("order_name" in told for told in said.values())
    assert shop.months("ida")[0]["status"] == "refunded"
    assert shop.asked("subscription show jane")["status"] == "cancelled"
    shop.wait(lambda: shop.is_paid("kim"))
    written = {path.suffix for path in (shop.folder / "reports").iterdir()}
    assert written == {".html", ".csv"}
    shop.does("maewol invariants")


def test_operating_it_as_the_readme_says() -> None:
    """Its table, step by step, with its five processes, PostgreSQL and Valkey beside them."""
    page = (ROOT / "README.md").read_text("utf-8")
    found = [one.command.partition("#")[0].strip() for one in steps(page)]
    daemons = [one for one in found if one.startswith(("celery", "maewol"))]
    assert len(daemons) == 5
    with opened() as (shop, stack):
        servers = stack.enter_context(running(shop.folder / "servers", durable=False))
        of_web = shop.ports["web"]
        shop.environ |= {
            "MAEWOL_DATABASE_URL": str(servers.database_url),
            "MAEWOL_BROKER_URL": str(servers.broker_url),
            "MAEWOL_FLOWER_PASSWORD": "of-this-test",
            "FLOWER_PORT": str(shop.ports["flower"]),
        }
        for uid in ("lee", "max"):
            shop.register(uid)
        shop.lines("lee", "max")
        shop.does("maewol db upgrade")
        shop.does('maewol hold --why "first import"')
        shop.does("maewol subscription import in.csv --verify --dry-run")
        assert shop.asked("subscription list") == []
        shop.does("maewol subscription import in.csv --verify")
        for one in daemons:
            more = f" --port {of_web}" if one == "maewol web" else ""
            stack.enter_context(started(one + more, shop.folder, shop.environ))
        shop.wait(lambda: _answers(f"{shop.web}/healthz"))
        shop.wait(lambda: _answers(f"http://127.0.0.1:{shop.ports['flower']}/healthcheck"))
        assert "lee" in shop.does("maewol due --days 31")
        shop.wait(lambda: [one["status"] for one in shop.asked("cycles")] == ["open", "open"])
        assert "first import" in shop.does("maewol release")
        shop.wait(lambda: shop.is_paid("lee") and shop.is_paid("max"))
        for command in ("doctor", "status", "cycles", "why lee", "invariants"):
            shop.does(f"maewol {command}")
        shop.does(f"maewol reconcile {spoken(page, 'maewol reconcile ')}")
        month = spoken(page, "maewol report ").replace("FOLDER", "reports")
        shop.does(f"maewol report {month}")
        assert len(list((shop.folder / "reports").iterdir())) == 5


def spoken(page: str, start: str) -> str:
    """What follows the beginning of a command in the page's sentences."""
    return page.partition(f"`{start}")[2].partition("`")[0]


def _answers(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(address).status_code == 200
    return False
