"""What an answer that is no success asks for."""

import pytest

from canary_rollout.kube.answers import LONGEST_WAIT, error_of, watch_error


@pytest.mark.parametrize(
    ("asked", "waits"), [("3", 3.0), ("86400", LONGEST_WAIT), ("inf", LONGEST_WAIT), ("nan", 0.0), ("-1", 0.0)]
)
def test_nobody_is_made_to_wait_for_longer_than_half_a_minute(asked, waits):
    assert error_of("list", "/api/v1/pods", 503, b"<h1>maintenance</h1>", {"Retry-After": asked}).retry_after == waits


def test_a_watch_that_asks_for_an_hour_waits_half_a_minute():
    assert (
        watch_error("/api/v1/pods", {"code": 429, "details": {"retryAfterSeconds": 3600}}).retry_after == LONGEST_WAIT
    )
