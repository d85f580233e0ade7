"""The rival: what one would write in an afternoon, tuned as well as it can be.

One Celery task for each charge; a kept client and a kept database connection in each thread; a
POST, then an INSERT. No claim, no look-up, no lease: killed in between, it forgets or doubles.

    BENCH_GATEWAY=… BENCH_DATABASE=… BENCH_BROKER=… celery -A benchmarks.rig.script worker
"""

from __future__ import annotations

import os
import threading
from typing import Any

import httpx2
import psycopg
from celery import Celery

app = Celery("script", broker=os.environ["BENCH_BROKER"])
app.conf.update(
    accept_content=["json"],
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=4,
    worker_pool="threads",
    worker_hijack_root_logger=False,
    task_default_queue="script",
)
_mine = threading.local()


def _tools() -> tuple[httpx2.Client, psycopg.Connection[Any]]:
    if not hasattr(_mine, "client"):
        _mine.client = httpx2.Client(base_url=os.environ["BENCH_GATEWAY"], timeout=60)
        _mine.database = psycopg.connect(os.environ["BENCH_DATABASE"], autocommit=True)
    return _mine.client, _mine.database


@app.task(name="script.charge")  # type: ignore[untyped-decorator]
def charge(customer_uid: str, amount: int) -> None:
    client, database = _tools()
    body = {
        "customer_uid": customer_uid,
        "merchant_uid": f"{customer_uid}-2026-11",
        "amount": amount,
        "name": "Monthly plan",
    }
    answer = client.post("/subscribe/payments/again", json=body).json()["response"]
    database.execute(
        "INSERT INTO script_payments (customer_uid, imp_uid, status, amount)"
        " VALUES (%s, %s, %s, %s)",
        (customer_uid, answer["imp_uid"], answer["status"], amount),
    )
