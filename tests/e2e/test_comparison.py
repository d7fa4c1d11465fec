"""The comparison with stable on real parts: quicker than a threshold, and a killed operator makes up what it missed."""

import json
import re

import pytest
from release_play import HELD_AT_5, ROLLOUT, told

pytestmark = [pytest.mark.e2e, pytest.mark.nginx, pytest.mark.prometheus]

BY_REQUEST = {"nginx": {"service": "checkout-proxy"}}
SLOW_RULE = {"name": "error-rate", "preset": "error-rate", "above": "1%", "for": "5m", "minRequests": 10}


async def test_a_canary_that_fails_a_third_is_stopped_long_before_the_threshold_would_have_waited(play):
    await play.serve(play.spec(HELD_AT_5, haltRules=[SLOW_RULE], traffic=BY_REQUEST), "5%")
    await play.tell_canary("error_rate=0.3")
    began, lag = await play.until(lambda: True, "now"), play.lag()
    lowered = await play.until_weight(0)
    told(f"30 % of the canary's requests fail -> weight 0 seen: {lowered - began:.1f} s; the rule waits 300 s")
    assert lowered - began < 20 + await play.held_up(lag)
    await play.until(lambda: play.phase == "RolledBack", "the end of the rollback")
    halt = play.status["halt"]
    assert halt["rule"] == "error-comparison"
    assert re.search(r"canary \d[\d,]* of \d", halt["message"]), halt["message"]
    assert halt["message"] in await play.canary("status", ROLLOUT)
    rule = next(verdict for verdict in play.status["verdicts"] if verdict["rule"] == "error-rate")
    assert rule["verdict"] == "none"


async def test_a_killed_operator_asks_for_the_ticks_it_missed_and_stops_what_went_wrong_meanwhile(play):
    spec = play.spec(HELD_AT_5, haltRules=[SLOW_RULE], traffic=BY_REQUEST)
    await play.serve(spec, "5%")
    operator = await play.one_operator()
    await play.until(lambda: (play.status.get("evidence") or {}).get("comparison"), "a checkpoint of the comparison")
    began = play.status["evidence"]["comparison"]["began"]
    await operator.kill()
    await play.tell_canary("error_rate=0.3")
    await play.never(lambda: play.weight != 500, "somebody lowered it", 6)
    again = await play.start_operator(operator.identity)
    lowered = await play.until_weight(0)
    told(f"start of the operator -> weight 0 by what it missed: {lowered - again.started:.2f} s")
    await play.until(lambda: play.phase == "RolledBack", "the end of the rollback")
    assert play.status["halt"]["rule"] == "error-comparison"
    log = (play.cluster.run_dir / f"{operator.identity}.log").read_text(encoding="utf-8")
    (*_, replay) = [json.loads(line) for line in log.splitlines() if '"replaying"' in line]
    assert replay["after"] <= began + 2  # from the beginning of this comparison on, not from the restart
    assert replay["until"] > replay["after"] + 5
