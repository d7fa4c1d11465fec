"""The work queue under virtual time."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from under_way import under_way

from canary_rollout.controller.queue import Backoff, Outcome, WorkQueue
from canary_rollout.kube.port import UnavailableError

pytestmark = [pytest.mark.looptime]

A, B, C = ("shop", "a"), ("shop", "b"), ("shop", "c")


def now():
    return round(asyncio.get_running_loop().time(), 3)


class Work:
    """A reconcile that records when it ran and does what it is told."""

    def __init__(self):
        self.runs = []
        self.active = set()
        self.duration = {}
        self.answers = {}

    async def __call__(self, key):
        assert key not in self.active, "a key is never run twice at once"
        self.active.add(key)
        self.runs.append((key, now()))
        try:
            await asyncio.sleep(self.duration.get(key, 0))
        finally:
            self.active.discard(key)
        answers = self.answers.get(key)
        answer = answers.pop(0) if answers else None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def times(self, key):
        return [at for ran, at in self.runs if ran == key]


class Seen:
    def __init__(self):
        self.late, self.outcomes, self.retries = [], [], []

    def started(self, key, late):
        self.late.append((key, round(late, 3)))

    def ended(self, key, outcome, seconds):
        self.outcomes.append((key, outcome))

    def retrying(self, key, error, delay):
        self.retries.append((key, type(error), delay))


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def seen():
    return Seen()


@asynccontextmanager
async def running(queue):
    async with under_way(queue.run()):
        yield queue


async def test_a_key_added_twice_runs_once(work):
    async with running(WorkQueue(work)) as queue:
        queue.add(A)
        queue.add(A)
        await asyncio.sleep(1)
    assert work.runs == [(A, 0.0)]


async def test_what_is_added_before_the_queue_runs_is_not_lost(work):
    queue = WorkQueue(work)
    queue.add(A)
    queue.add_after(B, 5)
    await asyncio.sleep(1)
    assert work.runs == []
    async with running(queue):
        await asyncio.sleep(10)
    assert work.runs == [(A, 1.0), (B, 5.0)]


async def test_a_key_that_changes_while_in_work_runs_again_afterwards(work):
    work.duration[A] = 2
    async with running(WorkQueue(work)) as queue:
        queue.add(A)
        await asyncio.sleep(1)
        queue.add(A)
        queue.add(A)
        await asyncio.sleep(5)
    assert work.times(A) == [0.0, 2.0]


async def test_of_two_pending_times_the_earlier_counts(work):
    async with running(WorkQueue(work)) as queue:
        queue.add_after(A, 10)
        queue.add_after(A, 3)
        queue.add_after(A, 7)
        await asyncio.sleep(20)
    assert work.times(A) == [3.0]


async def test_a_run_says_when_to_look_again(work):
    work.answers[A] = [10.0, 5.0, None]
    async with running(WorkQueue(work)) as queue:
        queue.add(A)
        await asyncio.sleep(60)
    assert work.times(A) == [0.0, 10.0, 15.0]


async def test_a_run_that_comes_early_replaces_the_pending_time(work):
    work.answers[A] = [10.0, 10.0, None]
    async with running(WorkQueue(work)) as queue:
        queue.add(A)
        await asyncio.sleep(4)
        queue.add(A)
        await asyncio.sleep(60)
    assert work.times(A) == [0.0, 4.0, 14.0]


async def test_failures_back_off_until_a_success(work, seen):
    work.answers[A] = [ValueError("no")] * 4 + [None, ValueError("no"), None]
    queue = WorkQueue(work, backoff=Backoff(1, 4), observer=seen, rng=random.Random(1))
    async with running(queue):
        queue.add(A)
        await asyncio.sleep(60)
        queue.add(A)
        await asyncio.sleep(60)
    delays = [delay for _, _, delay in seen.retries]
    for delay, nominal in zip(delays, [1, 2, 4, 4, 1], strict=True):
        assert nominal / 2 <= delay <= nominal
    assert [outcome for _, outcome in seen.outcomes].count(Outcome.FAILED) == 5


async def test_the_server_may_ask_for_a_longer_wait(work, seen):
    work.answers[A] = [UnavailableError("busy", status=429, retry_after=9), None]
    async with running(WorkQueue(work, observer=seen)) as queue:
        queue.add(A)
        await asyncio.sleep(60)
    assert work.times(A) == [0.0, 9.0]


async def test_a_change_does_not_wait_for_the_back_off(work):
    work.answers[A] = [ValueError("no"), None]
    async with running(WorkQueue(work, backoff=Backoff(50, 50))) as queue:
        queue.add(A)
        await asyncio.sleep(1)
        queue.add(A)
        await asyncio.sleep(1)
    assert work.times(A) == [0.0, 1.0]


async def test_a_run_that_takes_too_long_is_cancelled_and_repeated(work, seen):
    work.duration[A] = 100
    queue = WorkQueue(work, timeout=5, backoff=Backoff(1, 1), observer=seen)
    async with running(queue):
        queue.add(A)
        await asyncio.sleep(5.1)
        work.duration[A] = 0
        await asyncio.sleep(5)
    assert seen.outcomes == [(A, Outcome.TIMED_OUT), (A, Outcome.DONE)]


async def test_no_more_than_the_workers_run_at_once_and_all_get_their_turn(work, seen):
    keys = [("shop", f"k{n}") for n in range(6)]
    for key in keys:
        work.duration[key] = 1
    async with running(WorkQueue(work, workers=2, observer=seen)) as queue:
        for key in keys:
            queue.add(key)
        assert queue.depth() == 4
        await asyncio.sleep(0.5)
        assert queue.running() == 2
        assert queue.longest_wait() == pytest.approx(0.5)
        await asyncio.sleep(10)
    assert [key for key, _ in work.runs] == keys
    assert max(late for _, late in seen.late) == 2.0


async def test_a_preempting_key_goes_first_even_when_all_workers_are_busy(work):
    work.duration = {B: 50, C: 50}
    async with running(WorkQueue(work, workers=2)) as queue:
        for key in (B, C):
            queue.add(key)
        await asyncio.sleep(1)
        queue.preempt(A)
        await asyncio.sleep(1)
    assert work.times(A) == [1.0]


async def test_a_preempting_key_cancels_its_own_run_and_skips_the_back_off(work, seen):
    work.duration[A] = 50
    async with running(WorkQueue(work, observer=seen)) as queue:
        queue.add(A)
        await asyncio.sleep(1)
        work.duration[A] = 0
        queue.preempt(A)
        await asyncio.sleep(0.001)
    assert work.times(A) == [0.0, 1.0]
    assert [outcome for _, outcome in seen.outcomes] == [Outcome.PREEMPTED, Outcome.DONE]
    assert seen.retries == []


async def test_a_lowering_is_not_cancelled_by_the_next_reason_to_lower(work, seen):
    work.duration[A] = 2
    async with running(WorkQueue(work, observer=seen)) as queue:
        queue.preempt(A)
        await asyncio.sleep(1)
        queue.preempt(A)
        queue.preempt(A)
        await asyncio.sleep(10)
    assert work.times(A) == [0.0, 2.0]
    assert [outcome for _, outcome in seen.outcomes] == [Outcome.DONE, Outcome.DONE]


async def test_a_preempted_key_that_waits_in_the_queue_runs_once(work):
    work.duration[B] = 10
    async with running(WorkQueue(work, workers=1)) as queue:
        queue.add(B)
        await asyncio.sleep(0)
        queue.add(A)
        queue.preempt(A)
        await asyncio.sleep(30)
    assert work.times(A) == [0.0]


async def test_the_fast_lane_has_a_limit_of_its_own(work):
    keys = [("shop", f"k{n}") for n in range(5)]
    for key in keys:
        work.duration[key] = 1
    async with running(WorkQueue(work, workers=1, fast_workers=2)) as queue:
        for key in keys:
            queue.preempt(key)
        await asyncio.sleep(0.5)
        assert queue.running() == 2
        await asyncio.sleep(10)
    assert sorted(at for _, at in work.runs) == [0.0, 0.0, 1.0, 1.0, 2.0]


async def test_a_forgotten_key_leaves_nothing_behind(work):
    work.answers[A] = [ValueError("no")]
    async with running(WorkQueue(work)) as queue:
        queue.add(A)
        await asyncio.sleep(0.01)
        assert queue.scheduled(A) is not None
        queue.forget(A)
        await asyncio.sleep(100)
        assert queue._items == {}
    assert work.times(A) == [0.0]


async def test_lateness_is_measured_from_the_due_time(work, seen):
    work.duration[B] = 7
    async with running(WorkQueue(work, workers=1, observer=seen)) as queue:
        queue.add_after(A, 5)
        queue.add(B)
        await asyncio.sleep(20)
    assert seen.late == [(B, 0.0), (A, 2.0)]


async def test_an_end_of_the_process_ends_the_queue(work):
    class Killed(BaseException):
        pass

    work.answers[A] = [Killed()]
    queue = WorkQueue(work)
    queue.add(A)
    with pytest.raises(Killed):
        await queue.run()


async def test_stopping_cancels_what_is_under_way(work, seen):
    work.duration[A] = 100
    async with running(WorkQueue(work, observer=seen)) as queue:
        queue.add(A)
        await asyncio.sleep(1)
    assert work.active == set()
    assert work.runs == [(A, 0.0)]


async def test_many_timers_that_are_moved_do_not_pile_up(work):
    queue = WorkQueue(work)
    for n in range(10_000):
        queue.add_after(A, 20_000 - n)
    assert len(queue._heap) <= 65


_KEYS = [("shop", name) for name in "abcd"]
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "after", "preempt", "wait", "forget"]),
        st.sampled_from(_KEYS),
        st.sampled_from([0.0, 0.5, 1.0, 3.0, 10.0]),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(
    steps=_STEPS, durations=st.lists(st.sampled_from([0.0, 0.3, 2.0, 9.0]), min_size=1, max_size=8), seed=st.integers()
)
def test_whatever_happens_no_key_runs_twice_at_once_and_none_that_is_due_is_left(  # noqa: C901
    steps, durations, seed
):
    """The queue against its contract: mutual exclusion, no lost wake-up, workers bounded, nothing left over."""
    import looptime

    rng = random.Random(seed)

    async def scenario():
        active, asked, began = set(), {}, {}
        slow = 0

        async def work(key):
            nonlocal slow
            assert key not in active
            active.add(key)
            began[key] = loop.time()
            try:
                await asyncio.sleep(durations[rng.randrange(len(durations))])
                if rng.random() < 0.2:
                    raise UnavailableError("now and then")
            finally:
                active.discard(key)

        loop = asyncio.get_running_loop()
        async with running(WorkQueue(work, workers=2, backoff=Backoff(0.5, 2), rng=rng)) as queue:
            for action, key, seconds in steps:
                match action:
                    case "add":
                        queue.add(key)
                        asked[key] = loop.time()
                    case "after":
                        queue.add_after(key, seconds)
                        asked[key] = loop.time() + seconds
                    case "preempt":
                        queue.preempt(key)
                        asked[key] = loop.time()
                        await asyncio.sleep(0.0001)
                        assert began[key] > loop.time() - 10, "a preempt waits for nothing but its own fast run"
                    case "wait":
                        await asyncio.sleep(seconds)
                    case "forget" if key not in active:
                        queue.forget(key)
                        asked.pop(key, None)
                assert queue._busy <= 2
            await asyncio.sleep(1000)
            for key, at in asked.items():
                # A run that began at or after the request has seen it; an earlier pending time may have served it.
                assert key in began, f"{key} was asked for at {at} and never ran"
            assert not active
            assert queue._items == {}

    loop = looptime.patch_event_loop(asyncio.new_event_loop(), _enabled=True)
    try:
        loop.run_until_complete(scenario())
    finally:
        loop.close()
