"""The ceiling: one asyncio loop with aiohttp that posts the charges and does nothing else.

    python benchmarks/rig/bare.py URL CHARGES WIDTH [--look]

With `--look` each charge is preceded by the look-up that the product makes. Prints
the seconds, and those of a processor.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp
import uvloop


async def _run(url: str, charges: int, width: int, look: bool) -> tuple[float, float]:
    numbers = iter(range(charges))
    connector = aiohttp.TCPConnector(limit=width)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def worker() -> None:
            for number in numbers:
                name = f"bare-{number}"
                if look:
                    path = f"/subscribe/customers/{name}/payments?limit=100&page=1"
                    async with session.get(url + path) as response:
                        assert (await response.json())["code"] == 0
                body = {
                    "customer_uid": name,
                    "merchant_uid": name,
                    "amount": 9900,
                    "name": "Monthly plan",
                }
                async with session.post(f"{url}/subscribe/payments/again", json=body) as response:
                    answer = await response.json()
                assert answer["response"]["status"] == "paid"

        started, used = time.perf_counter(), time.process_time()
        await asyncio.gather(*(worker() for _ in range(width)))
        return time.perf_counter() - started, time.process_time() - used


if __name__ == "__main__":
    address, count, wide = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    spent, processor = uvloop.run(_run(address, count, wide, "--look" in sys.argv))
    print(json.dumps({"seconds": spent, "processor": processor}))
