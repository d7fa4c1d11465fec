"""Raises are refused without a valid Lease, and when the clock is proved to be off."""

import random

import pytest

from canary_rollout.controller.clock import SystemClock, micro_time, monotonic
from canary_rollout.controller.guard import Guard


class Fence:
    ok = True

    def valid(self):
        return self.ok


class World:
    """A true time, a server that shows it in whole seconds, and our wall clock with an offset."""

    def __init__(self, offset=0.0):
        self.true, self.offset = 1_000_000.0, offset
        self.fence = Fence()
        self.guard = Guard(self.fence, wall=lambda: self.true + self.offset, mono=lambda: self.true - 999_000)

    def answer(self, took=0.02):
        sent = self.true + self.offset
        self.true += took / 2
        server = float(int(self.true))
        self.true += took / 2
        self.guard.server_date(server, sent, self.true + self.offset)


def test_without_a_valid_lease_nothing_is_raised():
    world = World()
    assert world.guard.refusal() == ""
    world.fence.ok = False
    assert "Lease may have run out" in world.guard.refusal()


@pytest.mark.parametrize("offset", [0.0, 0.5, -0.5, 1.9, -1.9])
def test_a_clock_within_the_tolerance_is_never_suspected(offset):
    rng, world = random.Random(1), World(offset)
    for _ in range(200):
        world.answer(took=rng.uniform(0.001, 3))
        assert world.guard.refusal() == ""
        world.true += rng.uniform(0, 5)


@pytest.mark.parametrize("offset", [2.2, -2.2, 30, -3600])
def test_a_clock_that_is_off_is_found_out_after_a_few_answers(offset):
    rng, world = random.Random(2), World(offset)
    for _ in range(30):
        world.answer()
        world.true += rng.uniform(2, 2.4)
    assert not world.guard.clock_ok()
    assert world.guard.skew() == pytest.approx(offset, abs=0.3)
    direction = "ahead of" if offset > 0 else "behind"
    assert direction in world.guard.refusal()
    assert "check NTP" in world.guard.refusal()


def test_a_clock_that_is_set_between_two_answers_is_noticed_at_once():
    world = World()
    for _ in range(10):
        world.answer()
        world.true += 2.1
    assert world.guard.clock_ok()
    world.offset = 10.0
    assert not world.guard.clock_ok()
    world.offset = 0.0
    assert world.guard.clock_ok()


def test_a_server_whose_clock_is_mended_is_believed_again():
    world = World(5.0)
    for _ in range(5):
        world.answer()
    assert not world.guard.clock_ok()
    world.offset = 0.0
    world.answer()
    assert world.guard.clock_ok()


def test_slow_answers_and_no_answers_prove_nothing():
    world = World(30.0)
    world.answer(took=20)
    assert world.guard.clock_ok()
    world.answer()
    assert not world.guard.clock_ok()
    world.true += 600
    assert world.guard.clock_ok()


def test_the_system_clocks_go_forward():
    assert SystemClock().now() > 1_600_000_000
    assert monotonic() <= monotonic()
    assert micro_time(1.5) == "1970-01-01T00:00:01.500000Z"
