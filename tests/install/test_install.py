"""Installing: manifests and chart say the same, a real API server takes both, and the rights are the least that do."""

import asyncio
import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

NAMESPACE = "canary-rollout-system"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:canary-rollout-operator"
ROOT = Path(__file__).parents[2]
RELEASE = ("canary-rollout", str(ROOT / "helm" / "canary-rollout"), "--namespace", NAMESPACE)

ADDED_BY_HELM = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
}


def without_helm(value: Any) -> Any:
    """``value`` without the labels that only the chart adds."""
    if isinstance(value, dict):
        return {key: without_helm(item) for key, item in value.items() if key not in ADDED_BY_HELM}
    return [without_helm(item) for item in value] if isinstance(value, list) else value


def test_the_chart_carries_the_same_crd_and_the_same_rights():
    checked = subprocess.run(
        [sys.executable, str(ROOT / "helm" / "sync.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
class TestTheChart:
    async def test_real_helm_finds_nothing_to_complain_of(self, helm, chart):
        assert "1 chart(s) linted, 0 chart(s) failed" in await helm("lint", "--strict", chart)

    async def test_it_renders_to_what_the_manifests_say(self, helm, kustomized, read):
        rendered = read(await helm("template", *RELEASE, "--include-crds"))
        theirs = {key: without_helm(value) for key, value in rendered.items()}
        ours = copy.deepcopy(kustomized)
        # Helm makes the namespace itself, or is given one.
        del ours["Namespace", NAMESPACE]
        assert set(theirs) == set(ours)
        for key, value in ours.items():
            assert theirs[key] == without_helm(value), key

    async def test_named_namespaces_give_rights_in_these_alone(self, helm, read):
        rendered = read(await helm("template", *RELEASE, "--set", "watchNamespaces={shop}"))
        assert ("ClusterRoleBinding", "canary-rollout-operator") not in rendered
        binding = rendered["RoleBinding", "canary-rollout-operator"]
        assert binding["metadata"]["namespace"] == "shop"
        assert binding["roleRef"]["name"] == "canary-rollout-operator"
        # Rule sets for everybody are in no namespace: these alone are read everywhere.
        everywhere = {name for kind, name in rendered if kind == "ClusterRoleBinding"}
        assert everywhere == {"canary-rollout-operator-rule-sets"}
        (rule,) = rendered["ClusterRole", "canary-rollout-operator-rule-sets"]["rules"]
        assert (rule["resources"], rule["verbs"]) == (["clusterhaltrulesets"], ["list", "watch"])
        (container,) = rendered["Deployment", "canary-rollout-operator"]["spec"]["template"]["spec"]["containers"]
        assert {"name": "WATCH_NAMESPACES", "value": "shop"} in container["env"]

    @pytest.mark.parametrize("release", ["canaries-of-the-payments-platform-in-production-eu-01", "shop.canaries"])
    async def test_every_name_it_makes_of_a_release_is_one_that_kubernetes_takes(self, helm, read, release):
        rendered = read(await helm("template", release, RELEASE[1], "--set", "metrics.serviceMonitor.enabled=true"))
        for kind, name in rendered:
            assert len(name) <= 63 or "Role" in kind, (kind, name)
            assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), (kind, name)

    async def test_what_can_be_set_reaches_the_pods(self, helm, read, tmp_path):
        values = {
            "replicas": 3,
            "image": {"repository": "mirror/operator", "tag": "1.2.3", "pullPolicy": "Always"},
            "imagePullSecrets": [{"name": "pull"}],
            "resources": {"limits": {"memory": "1Gi"}},
            "log": {"level": "debug", "format": "console"},
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"key": "infra", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "system-cluster-critical",
            "podAnnotations": {"a": "b"},
            "podLabels": {"team": "platform"},
            "extraEnv": [{"name": "X", "value": "y"}],
            "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
            "serviceAccount": {"create": False, "name": "mine"},
            "metrics": {
                "service": {"port": 9000},
                "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            },
            "podDisruptionBudget": {"enabled": False},
            "aggregateRoles": False,
        }
        (tmp_path / "values.json").write_text(json.dumps(values))
        rendered = read(await helm("template", *RELEASE, "--values", str(tmp_path / "values.json")))
        deployment = rendered["Deployment", "canary-rollout-operator"]["spec"]
        pod = deployment["template"]["spec"]
        (container,) = pod["containers"]
        assert deployment["replicas"] == 3
        assert (container["image"], container["imagePullPolicy"]) == ("mirror/operator:1.2.3", "Always")
        assert container["resources"]["limits"] == {"memory": "1Gi"}
        environment = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert (environment["LOG_LEVEL"], environment["LOG_FORMAT"], environment["X"]) == ("debug", "console", "y")
        for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"):
            assert pod[name] == values[name]
        assert pod["topologySpreadConstraints"] == values["topologySpreadConstraints"]
        assert pod["serviceAccountName"] == "mine"
        assert deployment["template"]["metadata"]["annotations"] == {"a": "b"}
        assert deployment["template"]["metadata"]["labels"]["team"] == "platform"
        assert rendered["Service", "canary-rollout-operator-metrics"]["spec"]["ports"][0]["port"] == 9000
        monitor = rendered["ServiceMonitor", "canary-rollout-operator"]
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        assert [endpoint["honorLabels"] for endpoint in monitor["spec"]["endpoints"]] == [True]
        kinds = {kind for kind, _ in rendered}
        assert not kinds & {"ServiceAccount", "PodDisruptionBudget"}
        assert ("ClusterRole", "canary-rollout-view") not in rendered

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ("log.level=loud", "/log/level"),
            ("replica=3", "replica"),
            ("watchNamespaces={Shop_1}", "/watchNamespaces/0"),
        ],
    )
    async def test_a_wrong_value_is_refused_by_name(self, helm, wrong, said):
        with pytest.raises(AssertionError) as refused:
            await helm("template", *RELEASE, "--set", wrong)
        assert said in str(refused.value)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def installed(local_cluster, crd) -> None:
    await local_cluster.kubectl("apply", "--server-side", "-k", str(ROOT / "manifests"))
    await granted(local_cluster, OPERATOR, *ALLOWED[0])


@pytest.mark.e2e
async def test_a_real_api_server_takes_the_manifests_without_a_warning(local_cluster, crd):
    said = await local_cluster.kubectl("apply", "--server-side", "-k", str(ROOT / "manifests"))
    assert "deployment.apps/canary-rollout-operator serverside-applied" in said
    assert "arning" not in said


@pytest.mark.e2e
@pytest.mark.slow
async def test_a_real_api_server_takes_the_chart_and_gives_it_back(local_cluster, crd, helm, namespace):
    environment = {"KUBECONFIG": str(local_cluster.kubeconfig)}
    release = ("second", "--namespace", namespace)
    said = await helm(
        "install", *release, str(ROOT / "helm" / "canary-rollout"), "--set", "replicas=0", environment=environment
    )
    assert "STATUS: deployed" in said
    assert "rollout status deployment/second-canary-rollout-operator" in said
    roles = await local_cluster.kubectl("get", "clusterroles,clusterrolebindings", "-o", "name")
    assert "clusterrole.rbac.authorization.k8s.io/second-canary-rollout-operator" in roles
    await helm("uninstall", *release, environment=environment)
    roles = await local_cluster.kubectl("get", "clusterroles,clusterrolebindings", "-o", "name")
    assert "second" not in roles
    # Uninstalling keeps the CRD, and with it everybody's rollouts.
    assert "canaryrollouts" in await local_cluster.kubectl("get", "crds", "-o", "name")


ALLOWED = [
    ("patch", "canaryrollouts", "status", "shop"),
    ("watch", "canaryrollouts", "", ""),
    ("patch", "canaryrollouts", "", "shop"),
    ("patch", "deployments.apps", "", "shop"),
    ("list", "pods", "", "shop"),
    ("list", "replicasets.apps", "", "shop"),
    ("watch", "endpointslices.discovery.k8s.io", "", ""),
    ("create", "configmaps", "", "shop"),
    ("watch", "leases.coordination.k8s.io", "", ""),
    ("create", "leases.coordination.k8s.io", "", NAMESPACE),
    ("create", "ingresses.networking.k8s.io", "", "shop"),
    ("create", "events.events.k8s.io", "", "shop"),
    ("patch", "virtualservices.networking.istio.io", "", "shop"),
    ("patch", "traefikservices.traefik.io", "", "shop"),
    ("patch", "ingressroutes.traefik.io", "", "shop"),
    ("patch", "virtualservers.k8s.nginx.org", "", "shop"),
    ("patch", "httpproxies.projectcontour.io", "", "shop"),
    ("watch", "horizontalpodautoscalers.autoscaling", "", ""),
]
REFUSED = [
    ("get", "secrets", "", "shop"),
    ("patch", "leases.coordination.k8s.io", "", NAMESPACE),  # but for its own
    ("delete", "configmaps", "", "shop"),
    ("delete", "leases.coordination.k8s.io", "", NAMESPACE),
    ("update", "canaryrollouts", "", "shop"),
    ("delete", "canaryrollouts", "", "shop"),
    ("create", "deployments.apps", "", "shop"),
    ("delete", "deployments.apps", "", "shop"),
    ("delete", "pods", "", "shop"),
    ("create", "pods", "exec", "shop"),
    ("patch", "services", "", "shop"),
    ("create", "leases.coordination.k8s.io", "", "shop"),
    ("patch", "leases.coordination.k8s.io", "", "shop"),
    ("create", "virtualservices.networking.istio.io", "", "shop"),
    ("delete", "httpproxies.projectcontour.io", "", "shop"),
    ("update", "virtualservers.k8s.nginx.org", "", "shop"),
    ("patch", "middlewares.traefik.io", "", "shop"),
    ("patch", "horizontalpodautoscalers.autoscaling", "", "shop"),
    ("get", "nodes", "", ""),
    ("create", "clusterrolebindings.rbac.authorization.k8s.io", "", ""),
]


async def may(local_cluster, who: str, verb: str, resource: str, subresource: str, namespace: str, groups=()) -> bool:
    name, _, group = resource.partition(".")
    if name == "canaryrollouts":
        group = "canaryrollout.dev"
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": who,
            "groups": list(groups),
            "resourceAttributes": {
                "verb": verb,
                "resource": name,
                "group": group,
                "subresource": subresource,
                "namespace": namespace,
            },
        },
    }
    answer = await local_cluster.admin.request(
        "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review
    )
    return answer["status"]["allowed"]


async def granted(local_cluster, who: str, *right: str) -> None:
    """Return when a right is there: the API server learns of a new binding through a watch of its own."""
    async with asyncio.timeout(60):
        while not await may(local_cluster, who, *right):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.1)


@pytest.mark.e2e
@pytest.mark.parametrize("right", ALLOWED, ids=" ".join)
async def test_the_operator_may(local_cluster, installed, right):
    await granted(local_cluster, OPERATOR, *right)


@pytest.mark.e2e
@pytest.mark.parametrize("right", REFUSED, ids=" ".join)
async def test_the_operator_may_not(local_cluster, installed, right):
    assert not await may(local_cluster, OPERATOR, *right)


@pytest.mark.e2e
async def test_who_may_edit_a_namespace_may_steer_its_rollouts_and_who_may_view_it_may_look(
    local_cluster, installed, namespace
):
    for who, role in (("ann", "edit"), ("bob", "view")):
        await local_cluster.kubectl(
            "create", "rolebinding", who, f"--clusterrole={role}", f"--user={who}", "-n", namespace
        )
    # The aggregation controller adds the rules a moment later, to each role by itself.
    await granted(local_cluster, "ann", "patch", "canaryrollouts", "", namespace)
    await granted(local_cluster, "ann", "get", "canaryrollouts", "", namespace)
    await granted(local_cluster, "bob", "watch", "canaryrollouts", "", namespace)
    assert not await may(local_cluster, "bob", "patch", "canaryrollouts", "", namespace)
    assert not await may(local_cluster, "ann", "patch", "canaryrollouts", "status", namespace)
