"""What an earlier version stored is read; what nobody ever took is refused as before."""

import pytest
from pydantic import ValidationError

from canary_rollout.model.metrics import Access
from canary_rollout.model.routing import RequestHeaders, Traffic
from canary_rollout.model.stored import AS_WRITTEN, STORED

TOLD_AND_READ = {"nginx": {"service": "proxy"}, "pin": {"header": "x-canary-version"}}
LATELY_REFUSED = [
    (Access, {"headers": [{"name": "Session-Token", "value": "abc"}]}),
    (Access, {"headers": [{"name": "X-Who", "value": "Basic abc"}]}),
    (Access, {"headers": [{"name": "Content-Length", "value": "3"}]}),
    (Access, {"headers": [{"name": "X-A", "value": "1"}, {"name": "x-a", "value": "2"}]}),
    (RequestHeaders, {"cohort": "X-A", "version": "x-a"}),
    (RequestHeaders, {"cohort": "traceparent"}),
    (Traffic, TOLD_AND_READ),
    (Traffic, {"nginx": {"service": "proxy"}, "sticky": {"header": "X-Canary-Cohort"}}),
]
NEVER_TAKEN = [
    (Access, {"headers": [{"name": "X A", "value": "abc"}]}),
    (Access, {"headers": [{"name": "X-A", "value": "a\nb"}]}),
    (Access, {"headers": [{"name": "X-A"}]}),
    (Access, {"bearerTokenSecretRef": {"name": "s", "key": "k"}, "basicAuth": None, "more": 1}),
    (RequestHeaders, {"cohort": "a;b"}),
    (RequestHeaders, {"cohort": "Host\n"}),
    (Traffic, {}),
    (Traffic, {"nginx": {"service": "proxy"}, "pin": {"header": "a b"}}),
]


@pytest.mark.parametrize(("model", "raw"), LATELY_REFUSED)
@pytest.mark.parametrize("context", [STORED, AS_WRITTEN])
def test_what_is_refused_only_lately_is_read_where_it_is_stored(model, raw, context):
    with pytest.raises(ValidationError):
        model.model_validate(raw)
    model.model_validate(raw, context=context)


@pytest.mark.parametrize(("model", "raw"), NEVER_TAKEN)
@pytest.mark.parametrize("context", [None, STORED, AS_WRITTEN])
def test_what_nobody_ever_took_is_refused_wherever_it_is(model, raw, context):
    with pytest.raises(ValidationError):
        model.model_validate(raw, context=context)


def test_a_stored_name_that_may_not_be_told_any_more_is_told_to_nobody_and_the_others_stay():
    raw = {"cohort": "X-Group", "version": "Authorization"}
    found = RequestHeaders.model_validate(raw, context=STORED)
    assert (found.cohort, found.version) == ("X-Group", "")
    assert RequestHeaders.model_validate(raw, context=AS_WRITTEN).version == "Authorization"
