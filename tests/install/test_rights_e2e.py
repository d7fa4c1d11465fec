"""The chart's rights for named namespaces suffice for whole releases, and the operator uses each verb of them.

What it really did is read from the API server's audit log; nothing was refused, and no right lies idle.
"""

import sys
from pathlib import Path

import pytest
import yaml
from live_operator import ready
from local_cluster import eventually

from canary_rollout.kube.port import CANARY_ROLLOUTS
from canary_rollout.local.audit import read_calls
from canary_rollout.local.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
RULES = ROOT / "manifests" / "rbac.yaml"
WITHIN = 120.0
API = "canaryrollout.dev/v1alpha1"
WEIGHT = "nginx.ingress.kubernetes.io/canary-weight"

ELSEWHERE = {
    (
        "configmaps",
        "create",
    ): "a server-side apply that creates is a patch in the log, and authorized as create as well",
    ("ingresses", "create"): "the same",
    ("httproutes", "*"): "routers of other tests (tests/traffic/conformance)",
    ("grpcroutes", "*"): "the same",
    ("virtualservices", "*"): "the same",
    ("traefikservices", "*"): "the same",
    ("ingressroutes", "*"): "the same",
    ("virtualservers", "*"): "the same",
    ("httpproxies", "*"): "the same",
    ("events", "patch"): "a repeat of the same Event counts up its series: none is repeated here",
}
"""Rights that no release here uses, and where they are used."""


def deployment(app, track, replicas):
    name = app if track == "stable" else f"{app}-{track}"
    labels = {"app": app, "track": track}
    container = {"name": "app", "image": "idle:v1"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def service(name, **selector):
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    spec = {"selector": selector, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def ingress(name):
    backend = {"service": {"name": name, "port": {"number": 80}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    spec = {"ingressClassName": "nginx", "rules": [{"host": "shop.example", "http": {"paths": [path]}}]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}, "spec": spec}


def rollout(cluster, name, traffic):
    """One that reads everything there is to read, and needs no numbers."""
    return {
        "apiVersion": CANARY_ROLLOUTS.api_version,
        "kind": CANARY_ROLLOUTS.kind,
        "metadata": {"name": name},
        "spec": {
            "workload": {
                "stable": {"service": name, "deployment": name},
                "canary": {"service": f"{name}-canary", "deployment": f"{name}-canary"},
                "drain": "1s",
            },
            "traffic": traffic,
            "metrics": {"prometheus": cluster.prometheus_url, "interval": "1s", "presets": ["tills"]},
            "analysis": {"enabled": False},
            "defaultHaltRules": False,
            "haltRuleSets": [{"name": "ours"}, {"name": "everybodys", "kind": "ClusterHaltRuleSet"}],
            "stages": [
                {"name": "half", "weight": "50%", "hold": "2s"},
                {"name": "all", "weight": "100%", "hold": "2s"},
            ],
        },
    }


def rule_set(kind, name):
    rule = {"name": "pages", "alert": {"labels": {"severity": "page"}}, "action": "Alert"}
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": {"haltRules": [rule]}}


def granted():
    """(resource, verb) of the operator's roles in manifests/."""
    found = set()
    for one in yaml.safe_load_all(RULES.read_text()):
        if one["kind"] in {"Role", "ClusterRole"} and one["metadata"]["name"] in {
            "canary-rollout-operator",
            "canary-rollout-lease",
        }:
            for rule in one["rules"]:
                found |= {(resource, verb) for resource in rule["resources"] for verb in rule["verbs"]}
    return found


WAYS = {
    "pods": {"service": {"service": "pods-all", "replicas": 2, "settle": "0s"}},
    "web": {"ingressNginx": {"ingress": "web", "controllerVersion": "1.12.1", "settle": "1s"}},
    "proxied": {"nginx": {"service": "proxied-all"}},
}
"""Routers that need nobody to confirm, and one that waits for proxies; by the rollout's name."""
OURS = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


class Shop:
    """A namespace, and an operator in another one that has the chart's rights for the first alone."""

    def __init__(self, cluster, namespace):
        self.cluster, self.namespace = cluster, namespace
        self.system = f"system-{namespace}"
        self.offset = 0
        self.user = ""

    async def install(self, helm):
        """The chart's rights, and the operator's kubeconfig."""
        await self.cluster.admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.system}})
        chart = str(ROOT / "helm" / "canary-rollout")
        only = f"watchNamespaces={{{self.namespace}}}"
        text = await helm("template", f"r{self.namespace[-6:]}", chart, "--namespace", self.system, "--set", only)
        rights = [one for one in yaml.safe_load_all(text) if one and one["kind"] in OURS]
        self.rights = yaml.safe_dump_all(rights)
        await self.cluster.kubectl("apply", "-f", "-", input=self.rights)
        account = next(one["metadata"]["name"] for one in rights if one["kind"] == "ServiceAccount")
        self.user = f"system:serviceaccount:{self.system}:{account}"
        return await self.cluster.kubeconfig_for(self.system, account)

    async def create(self, obj):
        await self.cluster.admin.create({**obj, "metadata": {**obj["metadata"], "namespace": self.namespace}})

    async def fill(self):
        """Apps, rollouts, and what they refer to."""
        self.cluster.images["idle"] = ["sleep", "3600"]
        preset = {"tills.yaml": "name: tills\nmeasures: {open-tills: {gauge: {series: tills_open}}}\n"}
        await self.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tills"}, "data": preset})
        await self.create(rule_set("HaltRuleSet", "ours"))
        everybodys = yaml.safe_dump(rule_set("ClusterHaltRuleSet", "everybodys"))
        await self.cluster.kubectl("apply", "-f", "-", input=everybodys)
        await self.create(ingress("web"))
        for app, traffic in WAYS.items():
            await self.create(deployment(app, "stable", 2))
            await self.create(deployment(app, "canary", 0 if app == "pods" else 1))
            await self.create(service(app, app=app, track="stable"))
            await self.create(service(f"{app}-canary", app=app, track="canary"))
            await self.create(service(f"{app}-all", app=app))
            await self.create(rollout(self.cluster, app, traffic))

    async def phase(self, name, wanted):
        def there(obj):
            return (obj.get("status") or {}).get("phase") == wanted

        await self.cluster.admin.wait_for(
            API, "CanaryRollout", name, there, namespace=self.namespace, what=wanted, timeout=WITHIN
        )

    async def releases(self):
        """Two whole releases, and a third that its rollout's deletion ends: what was made for it goes."""
        admin = self.cluster.admin
        for name in WAYS:
            await self.phase(name, "Idle")
        await eventually(lambda: ("configmaps", "patch") in self.used(), "nginx' ConfigMap written", WITHIN)

        async def release(name, tag):
            image = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": f"idle:{tag}"}]}}}}
            await admin.patch("apps/v1", "Deployment", f"{name}-canary", image, namespace=self.namespace)

        for name in ("pods", "web"):
            await release(name, "v2")
        for name in ("pods", "web"):
            await self.phase(name, "Succeeded")
        await release("web", "v3")
        await self.phase("web", "Progressing")
        await admin.wait_for(
            *("networking.k8s.io/v1", "Ingress", "web-canary"),
            lambda found: found["metadata"]["annotations"].get(WEIGHT) == "5000",
            namespace=self.namespace,
            what="half of the traffic",
            timeout=WITHIN,
        )
        await admin.delete(API, "CanaryRollout", "web", namespace=self.namespace)
        await admin.wait_gone(API, "CanaryRollout", "web", namespace=self.namespace, timeout=WITHIN)
        for right in (("events", "create"), ("ingresses", "delete")):
            await eventually(lambda right=right: right in self.used(), f"{right} used", WITHIN)

    async def clear(self):
        await self.cluster.admin.delete(API, "ClusterHaltRuleSet", "everybodys")
        await self.cluster.kubectl("delete", "--wait=false", "-f", "-", input=self.rights)
        await self.cluster.admin.delete("v1", "Namespace", self.system)

    def used(self):
        return _used(self.cluster.controlplane.audit_log, self.user, self.offset)


async def test_named_namespaces_need_no_other_right_and_each_verb_is_used(local_cluster, crd, helm, namespace):
    shop = Shop(local_cluster, namespace)
    kubeconfig = await shop.install(helm)
    await shop.fill()
    shop.offset = local_cluster.controlplane.audit_log.stat().st_size
    port = free_port()
    words = [
        *(sys.executable, "-m", "canary_rollout.controller"),
        *("--kubeconfig", str(kubeconfig), "--namespace", shop.system, "--watch-namespaces", namespace),
        *("--host", "127.0.0.1", "--port", str(port), "--log-format", "json"),
    ]
    log = local_cluster.run_dir / f"{shop.system}.log"
    process = local_cluster.table.start(words, name=shop.system, log=log)
    try:
        await ready(port)
        await shop.releases()
    finally:
        await process.stop()
        await shop.clear()
    used = shop.used()
    idle = granted() - used
    assert not {right for right in idle if not {right, (right[0], "*")} & ELSEWHERE.keys()}, "granted, and not used"
    assert not used - granted(), "used, and not in manifests/"
    assert not used & ELSEWHERE.keys(), "used here after all"


def _used(log, user, offset):
    """(resource, verb) of a user's calls since then; none of them was forbidden."""
    found = set()
    for event in read_calls(log, offset=offset):
        if event["user"]["username"] != user or "objectRef" not in event:
            continue
        reference = event["objectRef"]
        resource = "/".join(filter(None, (reference["resource"], reference.get("subresource"))))
        assert event["responseStatus"]["code"] != 403, event
        found.add((resource, event["verb"]))
    return found
