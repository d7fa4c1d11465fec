"""Answers about the past: shared by all who fall due together, and not kept for nobody."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from canary_rollout.metrics.port import NobodyObserves
from canary_rollout.metrics.server import KEPT, PAST_TICKS, Server
from canary_rollout.metrics.target import Target

pytestmark = [pytest.mark.looptime]


class Client:
    """Is never asked here."""

    def close(self):
        """Nothing is open."""


@pytest.fixture
def server():
    with ThreadPoolExecutor(1) as executor:
        yield Server(Target("http://127.0.0.1:9"), Client(), executor, NobodyObserves())


async def test_who_asks_for_the_same_time_soon_shares_the_answer(server):
    first = server.past(1000.0, 1.0)
    await asyncio.sleep(KEPT - 0.1)
    assert server.past(1000.0, 1.0) is first
    assert server.past(1010.0, 1.0) is not first


async def test_who_asks_later_is_answered_anew_also_when_the_first_answer_was_an_outage(server):
    first = server.past(1000.0, 1.0)
    await asyncio.sleep(KEPT + 0.1)
    assert server.past(1000.0, 1.0) is not first


async def test_answers_that_nobody_will_ask_for_any_more_are_let_go(server):
    for at in range(3 * PAST_TICKS):
        server.past(float(at), 1.0)
    assert len(server._past) == PAST_TICKS
    await asyncio.sleep(KEPT + 0.1)
    server.past(5000.0, 1.0)
    assert len(server._past) == 1
