"""Who gets the canary, through the real pods: as many tenants as the weight says, and always the same ones."""

import math
import time

import pytest
from keepalive import fetch_all
from release_play import HELD_AT_5, NAMESPACE, ROLLOUT, told

from canary_rollout.local.demo_cast import service_address
from canary_rollout.traffic.nginx.hashing import predicted_canary, salt_of

pytestmark = [pytest.mark.e2e, pytest.mark.nginx, pytest.mark.prometheus]

TENANTS = 20_000
AGAIN = 2_000


async def test_5_percent_of_the_tenants_and_the_same_ones_when_the_weight_rises(play):
    # Always the same image, so that revision, salt and split are the same in every run.
    tag = await play.serve(play.spec(HELD_AT_5), "5%", tag="split")
    address, port = await service_address(play.cluster, "checkout-proxy")

    async def on_canary(count):
        tenants = [{"X-Tenant-ID": f"tenant-{number}"} for number in range(count)]
        answers = await fetch_all(address, port, tenants)
        assert {answer.status for answer in answers} == {200}
        return {number for number, answer in enumerate(answers) if answer.headers["x-app-version"] == tag}

    began = time.monotonic()
    found = await on_canary(TENANTS)
    sigma = math.sqrt(TENANTS * 0.05 * 0.95)
    away = (len(found) - TENANTS * 0.05) / sigma
    told(
        f"{len(found)} of {TENANTS} tenants on the canary at 5 %: {away:+.2f} sigma ({time.monotonic() - began:.0f} s)"
    )
    assert abs(away) < 3
    salt = salt_of(NAMESPACE, ROLLOUT, play.log.revision)
    assert found == {number for number in range(TENANTS) if predicted_canary(salt, f"tenant-{number}", 500)}
    await play.canary("set-weight", ROLLOUT, "10%")
    await play.until(lambda: play.status["rollout"]["confirmed"] == "10%", "10 % to be proved")
    more = await on_canary(AGAIN)
    assert {number for number in found if number < AGAIN} < more
