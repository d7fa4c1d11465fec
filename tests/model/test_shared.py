"""Models share what they have alike, and stay what they were."""

from small_specs import make_spec

from canary_rollout.model.shared import share_field_sets
from canary_rollout.model.status import CanaryRolloutStatus, ConditionStatus, VerdictStatus


def status(message):
    return CanaryRolloutStatus(
        message=message,
        verdicts=(VerdictStatus(rule="errors", verdict="pass"), VerdictStatus(rule="p99", verdict="none")),
        conditions=(ConditionStatus(type="Ready", status="True", reason="Idle", message="", last_transition_time=1.0),),
    )


def test_models_with_the_same_fields_share_one_set_of_their_names():
    one, other = status("a"), status("b")
    for found in (one, other):
        share_field_sets(found)
    assert one.__pydantic_fields_set__ is other.__pydantic_fields_set__
    assert one.verdicts[0].__pydantic_fields_set__ is other.verdicts[1].__pydantic_fields_set__
    assert one.conditions[0].__pydantic_fields_set__ is not one.verdicts[0].__pydantic_fields_set__


def test_they_say_the_same_as_before_and_a_copy_has_a_set_of_its_own():
    found, spec = status("a"), make_spec()
    before, fields = found.to_dict(), spec.model_dump(exclude_unset=True)
    share_field_sets(found)
    share_field_sets(spec)
    assert found == status("a")
    assert found.to_dict() == before
    assert spec.model_dump(exclude_unset=True) == fields
    changed = found.model_copy(update={"stage": "first"})
    assert "stage" in changed.model_fields_set
    assert "stage" not in found.model_fields_set
