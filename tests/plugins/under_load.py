"""What clients of a proxy see while its weight changes."""

import time
from collections.abc import Callable

from keepalive import Answer, Load, fetch_all
from proxies import Edge, eventually, until

TENANTS = [{"X-Tenant-ID": f"tenant-{n}"} for n in range(400)]


async def share(port: int) -> float:
    """Of 400 tenants, those that get the canary now."""
    answers = await fetch_all("127.0.0.1", port, TENANTS)
    return sum(answer.body == b"canary" for answer in answers) / len(answers)


async def until_share(proxy: Edge, holds: Callable[[float], bool]) -> float:
    return await until(lambda: share(proxy.port), holds)


def begun_after(load: Load, moment: float, version: bytes = b"canary") -> list[Answer]:
    """Answers of a version to requests that began after a moment (``time.monotonic``)."""
    return [answer for answer in load.answers if answer.started > moment and answer.body == version]


async def nobody_new(load: Load, requests: int) -> None:
    """Of as many requests as this that begin from now on none is the canary's."""
    acked = time.monotonic()
    await eventually(lambda: len(begun_after(load, acked, b"stable")) >= requests)
    assert not begun_after(load, acked)


async def changes_fail_nothing(proxy: Edge, *, raises: int, requests: int, think: float = 0.0) -> None:
    """Up and down again under load: no request fails, and none that begins after an acknowledgement goes to the old version."""
    load = Load("127.0.0.1", proxy.port, connections=32, think=think)
    load.start()
    for _ in range(raises):
        await proxy.to(2500)
        seen = len(load.answers)
        await eventually(lambda: any(a.body == b"canary" for a in load.answers[seen:]))  # noqa: B023
        await proxy.to(0)
        await nobody_new(load, requests)
    await load.stop()
    assert load.failures == []
