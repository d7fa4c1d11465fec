"""The CRD on a real API server: what it refuses, in which words, and what it fills in."""

import asyncio
from pathlib import Path

import pytest
import yaml
from hostile import FINE_IN_A_PATTERN, HOSTILE, HOSTILE_FIELDS, HOSTILE_PATTERN
from hypothesis import HealthCheck, given, settings
from pydantic import ValidationError
from rollout_specs import specs, spoilt_specs
from rollouts import GOOD, RULE, STAGES, changed
from wrong_rollouts import BAD, Bad

from canary_rollout.model.rule_sets import HaltRuleSetSpec
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.model.status import CanaryRolloutStatus

pytestmark = pytest.mark.e2e

GOOD_ONES = {
    "three names": {},
    "sticky": {"traffic.sticky": {"header": "X-Tenant-ID", "fallback": "clientIP"}},
    "a switched-off header": {"traffic.responseHeaders": {"cohort": "", "version": ""}},
    "nginx outside the cluster": {"traffic": {"nginx": {"proxies": ["edge-1"]}}},
    "a route of its own": {
        "traffic": {"gatewayAPI": {"httpRoute": "a", "create": {"parentRefs": [{"name": "front"}]}, "settle": "5s"}}
    },
    "ingress-nginx": {"traffic": {"ingressNginx": {"ingress": "shop.example"}}},
    "stages": {"stages": STAGES, "stages.1.enabled": False, "stages.0.maxHold": "1h", "stages.2.approval": "required"},
    "a hundredth of a per cent": {"stages": STAGES, "stages.0.weight": "0.01%"},
    "100.00%": {"stages": STAGES, "stages.2.weight": "100.00%"},
    "days": {"stages": STAGES, "stages.1.maxHold": "1d12h", "stages.1.hold": "36h"},
    "cohort and gates": {
        "stages": STAGES,
        "stages.0.cohort": {"cookie": "cohort", "values": ["internal", "a.b_c-d"]},
        "stages.0.exit": [{"preset": "latency-p75", "maxRatio": "1.10"}, {"name": "up", "query": "up", "min": "1"}],
    },
    "rules": {"haltRules": [RULE, {"name": "queue", "query": "sum(queue) > 0", "below": "0.5%", "for": "90s"}]},
    "no rules": {"haltRules": [], "defaultHaltRules": False},
    "a standard rule changed, one switched off": {
        "haltRules": [{"name": "error-rate", "above": "2%"}, {"name": "cpu", "enabled": False}]
    },
    "all kinds of bounds": {
        "haltRules": [
            {"name": "a", "preset": "cache-hit-ratio", "belowRatio": "0.9", "baseline": {"from": "BeforeRollout"}},
            {"name": "b", "query": "sum(denied)", "aboveSigma": "3", "dryRun": True},
            {"name": "c", "alert": {"labels": {"severity": "critical|page", "namespace": "$namespace"}}},
            {
                "name": "d",
                "preset": "my-own",
                "source": "mine/shop",
                "aboveRatio": "2",
                "baseline": {"from": "Fixed", "value": "0.4"},
            },
        ]
    },
    "gates at both ends": {
        "stages": STAGES,
        "stages.1.entry": [{"name": "quiet", "alert": {"labels": {"severity": "1|2"}}, "for": "24h"}],
        "stages.1.haltRules": [{"name": "error-rate", "above": "0.5%"}],
    },
    "rule sets": {"haltRuleSets": [{"name": "gold", "kind": "ClusterHaltRuleSet", "variables": {"tier": "gold"}}]},
    "analysis": {"analysis": {"tolerance": "2", "certify": "1%", "actions": {"latency": "Rollback"}}},
    "arms": {"metrics.arms": {"by": "label", "label": "version", "stable": "v1", "canary": "v2"}},
    "headers of one's own, the secret one from a Secret": {
        "metrics.access": {
            "headers": [
                {"name": "X-Scope-OrgID", "value": "shop"},
                {"name": "Authorization", "secretRef": {"name": "prom", "key": "token"}},
            ]
        }
    },
    "an address with a path": {"metrics.prometheus": "https://prometheus.example:443/select/0/prometheus"},
    "an IPv6 address": {"metrics.prometheus": "http://[fd00::1]:9090"},
    "scaling": {"workload.canary.scaling": {"replicas": 3}},
    "identity": {"workload.identityPaths": ["/spec/containers/0/env/VERSION", "/metadata/annotations/a.b~1c"]},
}


@pytest.mark.parametrize("changes", GOOD_ONES.values(), ids=GOOD_ONES.keys())
async def test_what_is_right_is_stored_with_the_defaults_the_operator_knows(create, changes):
    manifest = changed(changes)
    stored = await create(manifest)
    # Written out, so that a default only one of them knows is seen.
    as_stored = CanaryRolloutSpec.model_validate(stored["spec"]).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    as_given = CanaryRolloutSpec.model_validate(manifest["spec"]).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    assert as_stored == as_given
    assert set(stored["spec"]) | {"haltRules", "haltRuleSets"} == set(as_given)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
async def test_what_is_wrong_is_refused_with_its_place_and_its_cure(create, bad: Bad):
    from canary_rollout.local.errors import ApiError

    with pytest.raises(ApiError) as refused:
        await create(bad.manifest)
    message = str(refused.value)
    assert refused.value.status in {400, 422}
    assert (bad.server_says or bad.says) in message
    assert (bad.server_at or bad.at) in message
    assert "failed rule" not in message
    assert "evaluat" not in message


@pytest.mark.parametrize(
    ("at", "path", "beside"),
    [*HOSTILE_FIELDS, HOSTILE_PATTERN],
    ids=[field[0] for field in (*HOSTILE_FIELDS, HOSTILE_PATTERN)],
)
async def test_no_hostile_string_is_stored(create, at, path, beside):
    from canary_rollout.local.errors import ApiError

    async def refused(hostile: str) -> None:
        with pytest.raises(ApiError) as refusal:
            await create(changed({**beside, path: hostile}))
        assert at in str(refusal.value)

    every = [one for one in HOSTILE if path != HOSTILE_PATTERN[1] or one not in FINE_IN_A_PATTERN]
    await asyncio.gather(*(refused(hostile) for hostile in every))


SAME_SERVER = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@SAME_SERVER
@given(spec=specs())
async def test_what_the_operator_accepts_the_api_server_accepts(create, spec):
    stored = await create({**GOOD, "spec": spec})
    assert CanaryRolloutSpec.model_validate(stored["spec"]) == CanaryRolloutSpec.model_validate(spec)


@SAME_SERVER
@given(spec=spoilt_specs())
async def test_the_operator_and_the_api_server_refuse_the_same(create, spec):
    from canary_rollout.local.errors import ApiError

    try:
        CanaryRolloutSpec.model_validate(spec)
    except ValidationError:
        with pytest.raises(ApiError):
            await create({**GOOD, "spec": spec})
    else:
        await create({**GOOD, "spec": spec})


async def test_a_name_that_leaves_no_room_for_suffixes_is_refused(create):
    from canary_rollout.local.errors import ApiError

    with pytest.raises(ApiError, match="the name has at most 50 characters"):
        await create({**GOOD, "metadata": {"name": "x" * 51}})
    await create({**GOOD, "metadata": {"name": "x" * 50}})


async def test_explain_reads_well(local_cluster, crd):
    stages = await local_cluster.kubectl("explain", "canaryrollout.spec.stages")
    assert "The steps, in order" in stages
    assert "How long the weight is held once the data plane has confirmed it" in " ".join(stages.split())
    everything = await local_cluster.kubectl("explain", "canaryrollout.spec", "--recursive")
    assert "haltRules" in everything


async def test_every_field_is_described(local_cluster, crd):
    definition = await local_cluster.admin.get(
        "apiextensions.k8s.io/v1", "CustomResourceDefinition", "canaryrollouts.canaryrollout.dev"
    )
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]

    def undescribed(at: str, node: dict) -> list[str]:
        found = [at] if "description" not in node else []
        for name, child in node.get("properties", {}).items():
            found += undescribed(f"{at}.{name}", child)
        items = node.get("items", {})
        return found + [
            missing
            for name, child in items.get("properties", {}).items()
            for missing in undescribed(f"{at}.{name}", child)
        ]

    assert undescribed("spec", schema["spec"]) == []
    assert undescribed("status", schema["status"]) == []


async def test_get_shows_phase_stage_weight_and_message_and_wide_shows_more(local_cluster, crd, namespace):
    manifest = {**GOOD, "metadata": {"name": "checkout", "namespace": namespace}}
    await local_cluster.admin.apply(manifest)
    status = CanaryRolloutStatus(
        phase="Progressing",
        stage="friendly (2/4)",
        weight="5%",
        message="Holding.",
        revision="0123456789",
        router="nginx (njs)",
    )
    await local_cluster.admin.patch(
        "canaryrollout.dev/v1alpha1",
        "CanaryRollout",
        "checkout",
        {"status": status.to_dict()},
        namespace=namespace,
        subresource="status",
    )
    head, row = (await local_cluster.kubectl("get", "crl", "-n", namespace)).splitlines()
    assert head.split() == ["NAME", "PHASE", "STAGE", "WEIGHT", "MESSAGE", "AGE"]
    for shown in ("checkout", "Progressing", "friendly (2/4)", "5%", "Holding."):
        assert shown in row
    wide_head, wide_row = (await local_cluster.kubectl("get", "canary", "-n", namespace, "-o", "wide")).splitlines()
    assert "REVISION" in wide_head
    assert "NEXT CHANGE" in wide_head
    assert "0123456789" in wide_row
    assert "nginx (njs)" in wide_row


async def test_a_whole_status_survives_being_stored(local_cluster, crd, namespace):
    """Nothing the operator remembers is pruned or refused by the schema."""
    manifest = {**GOOD, "metadata": {"name": "remember", "namespace": namespace}}
    await local_cluster.admin.apply(manifest)
    status = CanaryRolloutStatus.model_validate(
        {
            "observedGeneration": 3,
            "phase": "Paused",
            "message": "m" * 5000,
            "nextChange": "2026-11-21T10:00:00.123Z",
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "Idle",
                    "message": "",
                    "lastTransitionTime": "2026-11-21T10:00:00.000Z",
                }
            ],
            "verdicts": [{"rule": "errors", "verdict": "none", "reason": "NoData"}],
            "consumed": {"retry": "id-1"},
            "evidence": {"errors": {"since": "2026-11-21T10:00:00Z", "nested": [{"a": 1.5}]}},
            "rollout": {
                "phase": "Paused",
                "revision": "0123456789",
                "wanted": "5%",
                "confirmed": "0.5%",
                "clock": {"heldMs": 12, "since": "2026-11-21T10:00:00.000Z"},
                "pause": {"reason": "PausedByCommand", "message": "m", "at": "2026-11-21T10:00:00.000Z"},
                "override": STAGES,
                "halts": [
                    {"revision": "9876543210", "reason": "RuleFailed", "message": "m", "at": "2026-11-21T10:00:00.000Z"}
                ],
            },
        }
    )
    written = status.to_dict()
    stored = await local_cluster.admin.patch(
        "canaryrollout.dev/v1alpha1",
        "CanaryRollout",
        "remember",
        {"status": written},
        namespace=namespace,
        subresource="status",
    )
    assert stored["status"] == written
    assert CanaryRolloutStatus.model_validate(stored["status"]) == status


SETS = [
    document
    for document in yaml.safe_load_all((Path(__file__).parents[2] / "examples" / "halt-rule-set.yaml").read_text())
    if document
]


@pytest.mark.parametrize("manifest", SETS, ids=lambda manifest: manifest["kind"])
async def test_sets_of_halt_rules_are_stored_as_the_operator_reads_them(create_set, manifest):
    stored = await create_set(manifest)
    assert HaltRuleSetSpec.model_validate(stored["spec"]) == HaltRuleSetSpec.model_validate(manifest["spec"])


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"name": "cpu", "above": "$limit"}, "is not a number"),
        ({"name": "Big Name"}, "is not a name"),
        ({"name": "cpu", "limit": "1"}, "unknown field"),
        ({"name": "pages", "alert": {"labels": {"team": 'a"b'}}}, "should match"),
    ],
)
async def test_a_set_with_a_wrong_rule_is_refused(create_set, rule, says):
    from canary_rollout.local.errors import ApiError

    manifest = {**SETS[0], "spec": {"haltRules": [rule]}}
    with pytest.raises(ApiError) as refused:
        await create_set(manifest)
    assert says in str(refused.value)


async def test_who_uses_which_rule_set_is_seen_by_the_command_of_the_page(local_cluster, crd, namespace):
    page = (Path(__file__).parents[2] / "docs" / "halt-rules.md").read_text()
    (command,) = [line for line in page.splitlines() if line.startswith("$ kubectl get canaryrollouts -A")]
    for name, sets in (("one", ["gold", "payments"]), ("two", [])):
        manifest = changed({"haltRuleSets": [{"name": each, "kind": "ClusterHaltRuleSet"} for each in sets]})
        await local_cluster.admin.apply({**manifest, "metadata": {"name": name, "namespace": namespace}})
    lines = (await local_cluster.kubectl(*command.removeprefix("$ kubectl ").split())).splitlines()
    assert lines[0].split() == ["NAMESPACE", "NAME", "SETS"]
    ours = [line.split()[1:] for line in lines if line.startswith(namespace)]
    assert ours == [["one", "gold,payments"], ["two", "<none>"]]
