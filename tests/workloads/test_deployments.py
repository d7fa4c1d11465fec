"""The few writes to Deployments: one field each, safe to repeat, refused in a sentence."""

import asyncio

import pytest
from fake_api import Answer, Before, Deployments, FakeApi
from operator_world import ROLLOUT, SHOP, _deployment

from canary_rollout.kube.port import DEPLOYMENTS, REPLICA_SETS, ConflictError
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.workloads.deployments import PROMOTE_MANAGER, SCALE_MANAGER, WorkloadError, Workloads
from canary_rollout.workloads.view import PAUSE_MANAGER, deployment_revision, selector_labels

pytestmark = [pytest.mark.looptime]


@pytest.fixture
async def api():
    api = FakeApi()
    Deployments(api)
    user = api.client("user")
    for name, track, tag in (("checkout", "stable", "v1"), ("checkout-canary", "canary", "v2")):
        await user.create(DEPLOYMENTS, SHOP, _deployment(name, {"app": "checkout", "track": track}, tag))
    return api


@pytest.fixture
def workloads(api):
    return Workloads(api.client(), SHOP, CanaryRolloutSpec.model_validate(ROLLOUT["spec"]))


def at(api, name):
    return api.store.peek(DEPLOYMENTS, SHOP, name)


def image(api, name):
    return at(api, name)["spec"]["template"]["spec"]["containers"][0]["image"]


def revision(api, name):
    labels = selector_labels(at(api, "checkout"), at(api, "checkout-canary"))
    return deployment_revision(at(api, name), labels, ())


def managers(api, name, field):
    entries = at(api, name)["metadata"]["managedFields"]
    return {entry["manager"] for entry in entries if field in entry["fieldsV1"].get("f:spec", {})}


async def test_a_pause_is_one_field_of_its_own_manager_and_is_given_back(api, workloads):
    before = at(api, "checkout-canary")["spec"]
    await workloads.hold_pause()
    await workloads.hold_pause()
    assert at(api, "checkout-canary")["spec"] == {**before, "paused": True}
    assert managers(api, "checkout-canary", "f:paused") == {PAUSE_MANAGER}
    await workloads.release_pause()
    await workloads.release_pause()
    assert at(api, "checkout-canary")["spec"] == before


async def test_a_pause_of_somebody_else_stays(api, workloads):
    await api.client("user").merge_patch(
        DEPLOYMENTS, SHOP, "checkout-canary", {"spec": {"paused": True}}, manager="kubectl"
    )
    await workloads.hold_pause()
    await workloads.release_pause()
    assert at(api, "checkout-canary")["spec"]["paused"] is True


async def test_the_canary_is_scaled_and_nothing_else(api, workloads):
    before = at(api, "checkout-canary")["spec"]
    await workloads.scale_canary(5)
    assert at(api, "checkout-canary")["spec"] == {**before, "replicas": 5}
    assert SCALE_MANAGER in managers(api, "checkout-canary", "f:replicas")


async def test_stable_gets_the_canarys_template_and_keeps_its_labels(api, workloads):
    new = revision(api, "checkout-canary")
    await workloads.copy_to_stable(new)
    assert image(api, "checkout") == "app:v2"
    assert at(api, "checkout")["spec"]["template"]["metadata"]["labels"] == {"app": "checkout", "track": "stable"}
    assert revision(api, "checkout") == new
    assert PROMOTE_MANAGER in managers(api, "checkout", "f:template")
    writes = len(api.calls_of("operator", "patch"))
    await workloads.copy_to_stable(new)
    assert len(api.calls_of("operator", "patch")) == writes, "it is there already"


async def test_the_promoted_revision_is_copied_also_when_the_canary_has_moved_on(api, workloads):
    promoted = revision(api, "checkout-canary")
    await workloads.hold_pause()
    await api.client("user").merge_patch(DEPLOYMENTS, SHOP, "checkout-canary", _image("v3"))
    _keep_old_set(api, "checkout-canary", "v2")
    await workloads.copy_to_stable(promoted)
    assert image(api, "checkout") == "app:v2"


async def test_stable_goes_back_to_what_its_own_history_holds(api, workloads):
    old = revision(api, "checkout")
    _keep_old_set(api, "checkout", "v1")
    await workloads.copy_to_stable(revision(api, "checkout-canary"))
    await asyncio.sleep(1)  # the deployment controller has seen it
    await workloads.restore_stable(old)
    assert image(api, "checkout") == "app:v1"


async def test_a_revision_of_which_no_template_is_left_is_told(api, workloads):
    with pytest.raises(WorkloadError, match=r"has no template of revision 0123456789 any more .* by hand"):
        await workloads.restore_stable("0123456789")


async def test_a_copy_is_refused_when_stable_moved_in_between(api, workloads):
    new = revision(api, "checkout-canary")

    def meddle():
        api.store.merge_patch(DEPLOYMENTS, SHOP, "checkout", {"metadata": {"labels": {"a": "b"}}}, manager="user")

    api.fault(Before(meddle), verb="patch", resource=DEPLOYMENTS, client="operator")
    with pytest.raises(ConflictError):
        await workloads.copy_to_stable(new)
    assert image(api, "checkout") == "app:v1"


@pytest.mark.parametrize("act", ["copy", "pause"])
async def test_a_refusal_of_the_api_server_is_a_sentence_about_the_deployment(api, workloads, act):
    api.fault(Answer(422, "spec.template: no", "Invalid"), verb="patch", resource=DEPLOYMENTS, client="operator")
    new = revision(api, "checkout-canary")
    with pytest.raises(WorkloadError, match=r"Deployment checkout(-canary)? refused .*spec.template: no"):
        await (workloads.copy_to_stable(new) if act == "copy" else workloads.hold_pause())


def _image(tag):
    return {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": f"app:{tag}"}]}}}}


def _keep_old_set(api, name, tag):
    """A ReplicaSet as the deployment controller leaves it behind."""
    labels = {"app": "checkout", "track": "stable" if name == "checkout" else "canary", "pod-template-hash": "feed"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": f"app:{tag}"}]}}
    body = {"metadata": {"name": f"{name}-feed", "labels": labels}, "spec": {"template": template}}
    api.store.create(REPLICA_SETS, SHOP, body, manager="kube-controller-manager")
