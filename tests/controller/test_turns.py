"""Evaluations of many rollouts at once leave the event loop to what must not wait: the Lease, a lowering."""

import asyncio

import pytest
from metric_requests import make_request, make_spec
from scripted_metrics import Numbers
from virtual_time import EPOCH, now

from canary_rollout.analysis.sequential import Policy
from canary_rollout.controller import comparing
from canary_rollout.controller.running import begin
from canary_rollout.controller.turns import BUSY, LOOKING_BACK, Turns

MILLISECOND = 0.001


class Processor:
    """CPU time that passes only where somebody works."""

    def __init__(self):
        self.used = 0.0

    def __call__(self):
        return self.used

    def work(self, seconds=MILLISECOND):
        self.used += seconds


class Heart:
    """Notes how much CPU time lies between two turns of the loop."""

    def __init__(self, processor):
        self.processor, self.longest, self._task = processor, 0.0, None

    async def __aenter__(self):
        self._task = asyncio.create_task(self._beat())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_):
        self._task.cancel()

    async def _beat(self):
        while True:
            before = self.processor.used
            await asyncio.sleep(0)
            self.longest = max(self.longest, self.processor.used - before)


async def test_five_hundred_that_work_at_once_never_hold_the_loop_longer_than_one():
    processor = Processor()
    turns = Turns(processor)

    async def evaluation():
        for _ in range(20):
            await turns.pause()
            processor.work()

    async with Heart(processor) as heart:
        await asyncio.gather(*(evaluation() for _ in range(500)))
    assert processor.used == pytest.approx(500 * 20 * MILLISECOND)
    assert heart.longest <= BUSY + 2 * MILLISECOND


async def test_one_alone_is_not_made_to_yield_before_its_time_is_used_up():
    processor = Processor()
    turns = Turns(processor)
    async with Heart(processor) as heart:
        for _ in range(100):
            await turns.pause()
            processor.work()
    assert heart.longest == pytest.approx(BUSY)


@pytest.mark.looptime
async def test_only_a_few_look_back_at_one_server_at_a_time_in_the_order_they_came_and_other_servers_do_not_wait():
    turns, begun = Turns(Processor()), []

    async def look(server, number):
        async with turns.looking_back(server):
            begun.append((server, number, now()))
            await asyncio.sleep(10 if server == "slow" else 1)

    tasks = [asyncio.create_task(look("slow", number)) for number in range(LOOKING_BACK + 3)]
    tasks += [asyncio.create_task(look("fast", number)) for number in range(LOOKING_BACK)]
    await asyncio.gather(*tasks)
    assert [number for server, number, _ in begun if server == "slow"] == list(range(LOOKING_BACK + 3))
    assert [at for server, _, at in begun if server == "slow"] == [0.0, 0.0, 10.0, 10.0, 20.0]
    assert [at for server, _, at in begun if server == "fast"] == [0.0, 0.0]
    assert not turns._places


@pytest.mark.looptime
async def test_who_is_cancelled_while_waiting_for_a_place_or_holding_one_gives_it_back():
    turns = Turns(Processor())

    async def look():
        async with turns.looking_back("one"):
            await asyncio.sleep(1000)

    tasks = [asyncio.create_task(look()) for _ in range(LOOKING_BACK + 3)]
    await asyncio.sleep(1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not turns._places
    async with asyncio.timeout(1), turns.looking_back("one"):
        pass


class Busy(Numbers):
    """Every tick that is taken in costs a millisecond."""

    def __init__(self, processor):
        super().__init__()
        self.processor = processor

    def ticked(self, seconds, *, replayed):
        self.processor.work()

    async def counters_between(self, request, start, end, step, created=None):
        await asyncio.sleep(0)
        return tuple(self.counted(round(start + step * number, 3)) for number in range(round((end - start) / step) + 1))


@pytest.mark.thorough
async def test_fifteen_rollouts_that_replay_an_hour_leave_the_loop_to_others():
    processor = Processor()
    numbers, turns = Busy(processor), Turns(processor)
    policy, spec = Policy(interval=10.0), make_spec(interval="10s", history="0s")

    async def replay(number):
        running = begin(policy, 10.0, EPOCH)
        latest = EPOCH + 3600.0
        while running.through < latest:
            await comparing.compare(
                spec,
                running,
                numbers,
                comparing.Wanted(make_request(spec, name=f"app-{number}"), {}, latest),
                observer=numbers,
                turns=turns,
            )

    async with Heart(processor) as heart:
        await asyncio.gather(*(replay(number) for number in range(15)))
    assert processor.used == pytest.approx(15 * 361 * MILLISECOND)
    assert heart.longest <= BUSY + 2 * MILLISECOND
