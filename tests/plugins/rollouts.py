"""CanaryRollouts for tests: one that is right, and many that are wrong in one way each.

The wrong ones are refused twice, with the same sentence: by pydantic (tests/model) and by a real API server
(tests/install).
"""

import copy
from dataclasses import dataclass, field
from typing import Any

GOOD: dict[str, Any] = {
    "apiVersion": "canaryrollout.dev/v1alpha1",
    "kind": "CanaryRollout",
    "metadata": {"name": "checkout"},
    "spec": {
        "workload": {
            "stable": {"service": "checkout", "deployment": "checkout"},
            "canary": {"service": "checkout-canary", "deployment": "checkout-canary"},
        },
        "traffic": {"nginx": {"service": "edge"}},
        "metrics": {"prometheus": "http://prometheus.monitoring:9090"},
    },
}
STAGES = [
    {"name": "first", "weight": "0.5%", "hold": "1h"},
    {"name": "second", "weight": "25%", "hold": "1d12h"},
    {"name": "all", "weight": "100%", "hold": "0s"},
]
RULE = {"name": "errors", "preset": "error-rate", "above": "1%"}
GONE: Any = object()
"""In a change: take the field away."""


def rollout(**changes: Any) -> dict[str, Any]:
    """:data:`GOOD` with the parts of its spec in ``changes`` replaced: ``traffic__sticky={...}``."""
    return changed({name.replace("__", "."): value for name, value in changes.items()})


def changed(changes: dict[str, Any], base: dict[str, Any] = GOOD) -> dict[str, Any]:
    """``base`` with values replaced by path below ``spec``, such as ``stages.0.weight``."""
    result = copy.deepcopy(base)
    for path, value in changes.items():
        *parents, last = path.split(".")
        node: Any = result["spec"]
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node.setdefault(parent, {})
        if value is GONE:
            del node[last]
        elif isinstance(node, list):
            node[int(last)] = value
        else:
            node[last] = copy.deepcopy(value)
    return result


@dataclass(frozen=True)
class Bad:
    """A change that makes a CanaryRollout wrong.

    Attributes:
        says: part of the sentence both must say.
        at: field the sentence is about, as in the YAML.
        changes: by path below ``spec``.
        server_says: where the API server's own schema check speaks instead, part of what it says.
        server_at: where the API server blames another field.
    """

    name: str
    at: str
    says: str
    changes: dict[str, Any] = field(hash=False)
    server_says: str = ""
    server_at: str = ""

    @property
    def manifest(self) -> dict[str, Any]:
        """The wrong CanaryRollout."""
        return changed(self.changes)


def _stages(*weights: Any, **first: Any) -> list[dict[str, Any]]:
    stages = [{"name": f"s{at}", "weight": weight, "hold": "1h"} for at, weight in enumerate(weights)]
    stages[0].update(first)
    return stages


def _rule(**changes: Any) -> dict[str, Any]:
    merged = {**RULE, **changes}
    return {"haltRules": [{key: value for key, value in merged.items() if value is not GONE}]}


def _gate(**gate: Any) -> dict[str, Any]:
    return {"stages": _stages("5%", "100%", exit=[gate])}


def _cohort(**cohort: Any) -> dict[str, Any]:
    return {"stages": _stages("5%", "100%", cohort=cohort)}


_WEIGHT = "spec.stages[0].weight"
_RULE_BOUNDS = "above, below, aboveRatio, belowRatio and aboveSigma"
_GATE_BOUNDS = "max, min, maxRatio, minRatio and maxSigma"
_CHOICES = "not among the choices"

BAD: tuple[Bad, ...] = (
    # weights
    Bad(
        "a weight without unit or quotes",
        _WEIGHT,
        "25 %",
        {"stages": _stages(25, "100%")},
        "weight: 25 could mean 25 % or 0.25 %",
    ),
    Bad(
        "a weight in quotes without a unit",
        _WEIGHT,
        'weight "25" has no unit: write "25%"',
        {"stages": _stages("25", "100%")},
    ),
    Bad("three decimals", _WEIGHT, "is not a percentage", {"stages": _stages("0.125%", "100%")}),
    Bad("a weight above 100 %", _WEIGHT, "is not a percentage", {"stages": _stages("101%", "100%")}),
    Bad("a negative weight", _WEIGHT, "is not a percentage", {"stages": _stages("-1%", "100%")}),
    Bad(
        "a weight with a line break",
        _WEIGHT,
        "is not a percentage",
        {"stages": _stages("5%\n", "100%")},
        "this is not a percentage",
    ),
    Bad("a float", _WEIGHT, "is no string", {"stages": _stages(0.5, "100%")}, "must be of type integer,string"),
    Bad(
        "a stage at 0 %",
        "spec.stages[0]",
        'a stage serves something: write "0.01%" or more',
        {"stages": _stages("0.00%", "100%")},
        server_at=_WEIGHT,
    ),
    # stages
    Bad(
        "stages that do not rise",
        "spec.stages",
        "stage weights rise",
        {"stages": _stages("5%", "5.0%", "100%")},
    ),
    Bad(
        "stages that fall",
        "spec.stages",
        "stage weights rise",
        {"stages": _stages("25%", "9%", "100%")},
    ),
    Bad(
        "no stage at 100 %",
        "spec.stages",
        "the last enabled stage has",
        {"stages": _stages("5%", "25%")},
    ),
    Bad(
        "the stage at 100 % is off",
        "spec.stages",
        "the last enabled stage has",
        {"stages": [*_stages("5%"), {"name": "all", "weight": "100%", "hold": "1h", "enabled": False}]},
    ),
    Bad(
        "all stages are off",
        "spec.stages",
        "at least one stage is enabled",
        {"stages": _stages("100%", enabled=False)},
    ),
    Bad("no stages", "spec.stages", "at least 1", {"stages": []}, "should have at least 1 items"),
    Bad(
        "two stages of one name",
        "spec.stages",
        "rename one",
        {"stages": [*_stages("5%"), {"name": "s0", "weight": "100%", "hold": "1h"}]},
    ),
    Bad(
        "too many stages",
        "spec.stages",
        "at most 32",
        {"stages": _stages(*(f"{at}%" for at in range(1, 34)))},
        "must have at most 32 items",
    ),
    Bad(
        "a stage without hold",
        "spec.stages[0].hold",
        "is required",
        {"stages": [{"name": "all", "weight": "100%"}]},
        "Required value",
    ),
    Bad(
        "a stage named with blanks",
        "spec.stages[0].name",
        "is not a name",
        {"stages": _stages("100%", name="all of them")},
    ),
    Bad(
        "an approval that is not required",
        "spec.stages[0].approval",
        _CHOICES,
        {"stages": _stages("100%", approval="yes")},
        "supported values",
    ),
    Bad(
        "maxHold below hold",
        "spec.stages[0]",
        "is below hold",
        {"stages": _stages("100%", hold="1d", maxHold="23h59m")},
        server_at="spec.stages[0].maxHold",
    ),
    Bad(
        "maxHold below hold in days",
        "spec.stages[0]",
        "is below hold",
        {"stages": _stages("100%", hold="1d1h", maxHold="1d")},
        server_at="spec.stages[0].maxHold",
    ),
    # durations
    Bad("a duration without unit", "spec.stages[0].hold", "is not a duration", {"stages": _stages("100%", hold="60")}),
    Bad(
        "a duration without quotes",
        "spec.stages[0].hold",
        "is not a duration",
        {"stages": _stages("100%", hold=60)},
        'must be of type string: "integer"',
    ),
    Bad(
        "an empty duration",
        "spec.stages[0].hold",
        "is not a duration",
        {"stages": _stages("100%", hold="")},
        "should be at least 1 chars long",
    ),
    Bad("units in the wrong order", "spec.workload.drain", "largest first", {"workload.drain": "5s1m"}),
    Bad("a window below a second", "spec.metrics.window", "is too short", {"metrics.window": "999ms"}),
    Bad("an interval of nothing", "spec.metrics.interval", "is too short", {"metrics.interval": "0m0s"}),
    Bad("a rule's window of nothing", "spec.haltRules[0].window", "is too short", _rule(window="0s")),
    # numbers
    Bad("a number that is none", "spec.haltRules[0].above", "is not a number", _rule(above="much")),
    Bad(
        "a number without quotes",
        "spec.haltRules[0].above",
        "is not a number",
        _rule(above=1),
        'must be of type string: "integer"',
    ),
    Bad("a negative number", "spec.haltRules[0].above", "is not a number", _rule(above="-1")),
    # workload
    Bad(
        "one Service for both",
        "spec.workload",
        "stable and canary are two different Services, both name checkout",
        {"workload.canary.service": "checkout"},
        server_at="spec.workload.canary.service",
    ),
    Bad(
        "one Deployment for both",
        "spec.workload",
        "stable and canary are two different Deployments, both name checkout",
        {"workload.canary.deployment": "checkout"},
        server_at="spec.workload.canary.deployment",
    ),
    Bad("no canary", "spec.workload.canary", "is required", {"workload.canary": GONE}, "Required value"),
    Bad(
        "an unknown promotion", "spec.workload.promotion", _CHOICES, {"workload.promotion": "Magic"}, "supported values"
    ),
    Bad(
        "no replicas",
        "spec.workload.canary.scaling.replicas",
        "1 or more",
        {"workload.canary.scaling": {"replicas": 0}},
        "should be greater than or equal to 1",
    ),
    Bad(
        "replicas in quotes",
        "spec.workload.canary.scaling.replicas",
        "write a whole number",
        {"workload.canary.scaling": {"replicas": "3"}},
        "must be of type integer",
    ),
    Bad(
        "an identity path that is no pointer",
        "spec.workload.identityPaths[0]",
        "is not a path inside the pod template",
        {"workload.identityPaths": ["spec.containers[0].env"]},
    ),
    Bad(
        "an identity path of the Deployment",
        "spec.workload.identityPaths[0]",
        "leave /spec/template away",
        {"workload.identityPaths": ["/spec/template/spec/containers/0/image"]},
    ),
    Bad(
        "an identity path that is everything",
        "spec.workload.identityPaths[0]",
        "is not a path inside the pod template",
        {"workload.identityPaths": ["/spec"]},
    ),
    Bad(
        "a bare tilde",
        "spec.workload.identityPaths[0]",
        "is not a path inside the pod template",
        {"workload.identityPaths": ["/metadata/labels/a~b"]},
    ),
    # traffic
    Bad(
        "no router",
        "spec.traffic",
        "traffic names exactly one router (nginx or ingressNginx or",
        {"traffic": {}},
    ),
    Bad(
        "two routers", "spec.traffic", "traffic names exactly one router", {"traffic.ingressNginx": {"ingress": "shop"}}
    ),
    Bad(
        "sticky by nothing",
        "spec.traffic.sticky",
        "sticky names exactly one of header, cookie and clientIP; found none",
        {"traffic.sticky": {}},
    ),
    Bad(
        "sticky by two things",
        "spec.traffic.sticky",
        "sticky names exactly one of header, cookie and clientIP",
        {"traffic.sticky": {"header": "X-Tenant-ID", "cookie": "tenant"}},
    ),
    Bad(
        "an unknown fallback",
        "spec.traffic.sticky.fallback",
        _CHOICES,
        {"traffic.sticky": {"header": "X-Tenant-ID", "fallback": "dice"}},
        "supported values",
    ),
    Bad(
        "ingress-nginx sticky by header",
        "spec.traffic",
        "cannot keep tenants by a header",
        {"traffic": {"ingressNginx": {"ingress": "shop"}, "sticky": {"header": "X-Tenant-ID"}}},
        server_at="spec.traffic.sticky",
    ),
    Bad(
        "a privileged port",
        "spec.traffic.nginx.listen",
        "1024 or more",
        {"traffic.nginx.listen": 80},
        "should be greater than or equal to 1024",
    ),
    Bad(
        "one response header for both",
        "spec.traffic.responseHeaders",
        "told in different headers",
        {"traffic.responseHeaders": {"cohort": "X-V", "version": "x-v"}},
    ),
    Bad(
        "a response header with a blank",
        "spec.traffic.responseHeaders.version",
        "is not a header name",
        {"traffic.responseHeaders": {"version": "X Version"}},
    ),
    Bad(
        "nginx is stable's Service",
        "spec",
        "selects the nginx pods",
        {"traffic.nginx.service": "checkout"},
        server_at="spec.traffic.nginx.service",
    ),
    Bad(
        "a cohort by nothing",
        "spec.stages[0].cohort",
        "a cohort names exactly one of header and cookie; found none",
        _cohort(values=["x"]),
    ),
    Bad(
        "a cohort by two things",
        "spec.stages[0].cohort",
        "a cohort names exactly one of header and cookie",
        _cohort(header="X-A", cookie="a", values=["x"]),
    ),
    Bad(
        "a cohort of nobody",
        "spec.stages[0].cohort",
        "a cohort names somebody",
        _cohort(header="X-A", values=[]),
    ),
    # metrics
    Bad(
        "an address without scheme",
        "spec.metrics.prometheus",
        "is not an http or https address",
        {"metrics.prometheus": "prometheus:9090"},
    ),
    Bad(
        "an ftp address",
        "spec.metrics.prometheus",
        "is not an http or https address",
        {"metrics.prometheus": "ftp://prometheus"},
    ),
    Bad(
        "credentials in the address",
        "spec.metrics.prometheus",
        "carries credentials",
        {"metrics.prometheus": "http://me:secret@prometheus:9090"},
    ),
    Bad(
        "a query in the address",
        "spec.metrics.prometheus",
        "is not an http or https address",
        {"metrics.prometheus": "http://prometheus:9090/?a=b"},
    ),
    Bad(
        "arms by a label without its values",
        "spec.metrics.arms",
        "by: label needs label, stable and canary",
        {"metrics.arms": {"by": "label", "label": "version"}},
    ),
    Bad(
        "arms by pod with a label",
        "spec.metrics.arms",
        "by: pod and by: service take none of them",
        {"metrics.arms": {"label": "version"}},
    ),
    Bad(
        "arms with one value for both",
        "spec.metrics.arms",
        "different values on stable and canary",
        {"metrics.arms": {"by": "label", "label": "version", "stable": "v1", "canary": "v1"}},
    ),
    Bad(
        "an unknown way to tell arms apart",
        "spec.metrics.arms.by",
        _CHOICES,
        {"metrics.arms": {"by": "magic"}},
        "supported values",
    ),
    # rules and gates
    Bad(
        "a rule about nothing",
        "spec.haltRules[0]",
        "name exactly one of preset (a ready-made query), query (PromQL of your own) and alert (firing alerts); found none",
        _rule(preset=GONE),
    ),
    Bad("a rule about two things", "spec.haltRules[0]", "name exactly one of preset", _rule(query="up")),
    Bad(
        "a rule without a bound",
        "spec.haltRules[0]",
        f"halt rule errors names exactly one of {_RULE_BOUNDS}; found none",
        _rule(above=GONE),
    ),
    Bad(
        "a rule with two bounds",
        "spec.haltRules[0]",
        f"halt rule errors names exactly one of {_RULE_BOUNDS}; found",
        _rule(below="1"),
    ),
    Bad("two rules of one name", "spec.haltRules", "rename one", {"haltRules": [RULE, RULE]}),
    Bad("an unknown action", "spec.haltRules[0].action", _CHOICES, _rule(action="Explode"), "supported values"),
    Bad("a preset that is no name", "spec.haltRules[0].preset", "is not the name of a preset", _rule(preset="Vibes!")),
    Bad(
        "an alert with a bound",
        "spec.haltRules[0]",
        "with an alert",
        _rule(preset=GONE, alert={"labels": {"severity": "critical"}}),
        f"halt rule errors names exactly one of {_RULE_BOUNDS}",
    ),
    Bad(
        "an alert of anything",
        "spec.haltRules[0].alert.labels",
        "too short",
        _rule(preset=GONE, above=GONE, alert={"labels": {}}),
        "should have at least 1 properties",
    ),
    Bad(
        "a baseline of a plain threshold",
        "spec.haltRules[0]",
        "a baseline belongs to a ratio or a sigma",
        _rule(baseline={"from": "SameHour"}),
        server_at="spec.haltRules[0].baseline",
    ),
    Bad(
        "a sigma of now",
        "spec.haltRules[0]",
        "a sigma needs the baseline SameHour",
        _rule(above=GONE, aboveSigma="3", baseline={"from": "Stable"}),
        server_at="spec.haltRules[0].baseline",
    ),
    Bad(
        "a fixed baseline without its value",
        "spec.haltRules[0].baseline",
        "a baseline has a value if it is Fixed",
        _rule(above=GONE, aboveRatio="2", baseline={"from": "Fixed"}),
    ),
    Bad(
        "an unknown baseline",
        "spec.haltRules[0].baseline.from",
        _CHOICES,
        _rule(above=GONE, aboveRatio="2", baseline={"from": "Yesterday"}),
        "supported values",
    ),
    Bad(
        "two entry gates of one name",
        "spec.stages[0]",
        "the gates of a stage have unique names",
        {"stages": _stages("100%", entry=[{"preset": "error-rate", "max": "1%"}] * 2)},
        server_at="spec.stages[0].entry",
    ),
    Bad(
        "two rules of one name in a stage",
        "spec.stages[0]",
        "two halt rules of a stage have the same name",
        {"stages": _stages("100%", haltRules=[RULE, RULE])},
        server_at="spec.stages[0].haltRules",
    ),
    Bad(
        "a tolerance below one",
        "spec.analysis",
        'is out of range: write "1" to "100"',
        {"analysis": {"tolerance": "0.9"}},
        server_at="spec.analysis.tolerance",
    ),
    Bad(
        "a false rollback rate of everything",
        "spec.analysis",
        "is out of range",
        {"analysis": {"falseRollbackRate": "51%"}},
        server_at="spec.analysis.falseRollbackRate",
    ),
    Bad(
        "an unknown action of a test",
        "spec.analysis.actions.errors",
        _CHOICES,
        {"analysis": {"actions": {"errors": "Explode"}}},
        "supported values",
    ),
    Bad(
        "an unknown kind of rule set",
        "spec.haltRuleSets[0].kind",
        _CHOICES,
        {"haltRuleSets": [{"name": "gold", "kind": "RuleSet"}]},
        "supported values",
    ),
    Bad(
        "a variable that ends a string",
        "spec.haltRuleSets[0].variables.tier",
        "is not the value of a variable",
        {"haltRuleSets": [{"name": "gold", "variables": {"tier": 'x"} or up{job="'}}]},
        "should match",
    ),
    Bad(
        "an empty query",
        "spec.haltRules[0].query",
        "at least 1",
        _rule(preset=GONE, query=""),
        "should be at least 1 chars long",
    ),
    Bad(
        "an endless query",
        "spec.haltRules[0].query",
        "at most 4096",
        _rule(preset=GONE, query="x" * 4097),
        "may not be more than 4096",
    ),
    Bad(
        "a gate without a bound",
        "spec.stages[0].exit[0]",
        f"a gate names exactly one of {_GATE_BOUNDS}; found none",
        _gate(preset="error-rate"),
    ),
    Bad(
        "a gate with two bounds",
        "spec.stages[0].exit[0]",
        f"a gate names exactly one of {_GATE_BOUNDS}; found",
        _gate(preset="error-rate", max="1%", maxRatio="2"),
    ),
    Bad(
        "a gate about nothing", "spec.stages[0].exit[0]", "name exactly one of preset", _gate(name="nothing", max="1%")
    ),
    Bad(
        "a nameless gate with a query",
        "spec.stages[0].exit[0]",
        "a gate without a preset needs a name",
        _gate(query="up", min="1"),
    ),
    Bad(
        "two gates of one name",
        "spec.stages[0]",
        "the gates of a stage have unique names",
        {
            "stages": _stages(
                "100%", exit=[{"preset": "error-rate", "max": "1%"}, {"preset": "error-rate", "maxRatio": "2"}]
            )
        },
        server_at="spec.stages[0].exit",
    ),
    Bad(
        "an onNoData that goes on",
        "spec.onNoData.then",
        _CHOICES,
        {"onNoData": {"then": "Continue"}},
        "supported values",
    ),
    Bad("paused in quotes", "spec.paused", "write true or false", {"paused": "yes"}, "must be of type boolean"),
    Bad("a misspelt field", "spec.haltRule", "did you mean haltRules?", {"haltRule": []}, "unknown field"),
    Bad(
        "a misspelt field inside",
        "spec.stages[0].exits",
        "did you mean exit?",
        {"stages": _stages("100%", exits=[])},
        "unknown field",
    ),
)

HOSTILE: tuple[str, ...] = (
    "a; return 200",
    "a}",
    "$host",
    "${http_authorization}",
    "a\nb",
    "a\r\nSet-Cookie: x",
    "~^.*",
    '"',
    "'",
    "\\",
    "../x",
    "`id`",
    "{{ 7*7 }}",
    "a b",
    "a\u0000b",
    "é",
    "default\n",
    'x"} or up{job="',
    "unix:/var/run/docker.sock",
    "*",
    "#",
    "a\tb",
    "a\u2028b",
    "a\u202eb",
    "\ufeffa",
    "a\u0085",
    "%0d%0aX-A: b",
    "a%00",
    "|a|",
    "a && b",
    "$(id)",
    "<script>",
    "a,b",
    "a=b",
    "^(?:.*)$",
    "[a]",
    "a?b",
    "a+b",
    "!a",
    "a;b",
    "\uff41",
    "{a}",
    "&a",
    "[::]:80\n",
)
"""Strings that would do harm in an nginx config, a route's match, a regular expression, a PromQL query, a URL or a log
line."""
FINE_IN_A_PATTERN: tuple[str, ...] = ("a b", "../x")
"""Those of them that are plain characters in a glob."""

HOSTILE_FIELDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("spec.workload.stable.service", "workload.stable.service", {}),
    ("spec.workload.canary.deployment", "workload.canary.deployment", {}),
    ("spec.traffic.nginx.service", "traffic.nginx.service", {}),
    ("spec.traffic.nginx.configMap", "traffic.nginx.configMap", {}),
    ("spec.traffic.sticky.header", "traffic.sticky.header", {}),
    ("spec.traffic.sticky.cookie", "traffic.sticky.cookie", {}),
    ("spec.traffic.responseHeaders.cohort", "traffic.responseHeaders.cohort", {}),
    ("spec.traffic.responseHeaders.version", "traffic.responseHeaders.version", {}),
    ("spec.traffic.requestHeaders.cohort", "traffic.requestHeaders.cohort", {}),
    ("spec.traffic.requestHeaders.version", "traffic.requestHeaders.version", {}),
    ("spec.traffic.sticky.allow[0]", "traffic.sticky.allow.0", {"traffic.sticky": {"header": "X-A", "allow": ["x"]}}),
    ("spec.traffic.sticky.deny[0]", "traffic.sticky.deny.0", {"traffic.sticky": {"header": "X-A", "deny": ["x"]}}),
    ("spec.traffic.pin.header", "traffic.pin.header", {}),
    ("spec.traffic.pin.canary", "traffic.pin.canary", {"traffic.pin": {"header": "X-A"}}),
    ("spec.traffic.pin.stable", "traffic.pin.stable", {"traffic.pin": {"header": "X-A"}}),
    *(
        (f"spec.traffic.{router}.{field}", f"traffic.{router}.{field}", {"traffic": {router: settings}})
        for router, field, settings in (
            ("ingressNginx", "ingress", {}),
            ("ingressNginx", "controllerVersion", {"ingress": "x"}),
            ("gatewayAPI", "httpRoute", {}),
            ("gatewayAPI", "grpcRoute", {}),
            ("gatewayAPI", "rule", {"httpRoute": "x"}),
            ("istio", "virtualService", {}),
            ("istio", "route", {"virtualService": "x"}),
            ("traefik", "traefikService", {}),
            ("traefik", "ingressRoute", {}),
            ("virtualServer", "virtualServer", {}),
            ("virtualServer", "path", {"virtualServer": "x"}),
            ("contour", "httpProxy", {}),
            ("envoy", "service", {}),
            ("envoy", "configMap", {"service": "x"}),
            ("service", "service", {"replicas": 4}),
            ("custom", "router", {}),
        )
    ),
    *(
        (
            f"spec.traffic.gatewayAPI.create.{at}",
            f"traffic.gatewayAPI.create.{path}",
            {"traffic": {"gatewayAPI": {"httpRoute": "x", "create": {"parentRefs": [{"name": "x"}], **more}}}},
        )
        for at, path, more in (
            ("parentRefs[0].name", "parentRefs.0.name", {}),
            ("parentRefs[0].namespace", "parentRefs.0.namespace", {}),
            ("parentRefs[0].sectionName", "parentRefs.0.sectionName", {}),
            ("hostnames[0]", "hostnames.0", {"hostnames": ["x"]}),
            ("paths[0]", "paths.0", {"paths": ["/"]}),
        )
    ),
    *(
        (
            f"spec.traffic.istio.subsets.{field}",
            f"traffic.istio.subsets.{field}",
            {"traffic": {"istio": {"virtualService": "x", "subsets": {"host": "x", "stable": "x", "canary": "y"}}}},
        )
        for field in ("host", "stable", "canary")
    ),
    ("spec.stages[0].name", "stages.0.name", {"stages": _stages("100%")}),
    ("spec.stages[0].cohort.cookie", "stages.0.cohort.cookie", _cohort(values=["x"])),
    ("spec.stages[0].cohort.prefixes[0]", "stages.0.cohort.prefixes.0", _cohort(header="X-A", prefixes=["x"])),
    (
        "spec.stages[0].cohort.regions.header",
        "stages.0.cohort.regions.header",
        _cohort(regions={"header": "X-A", "weights": [{"value": "x", "weight": "1%"}]}),
    ),
    (
        "spec.stages[0].cohort.regions.weights[0].value",
        "stages.0.cohort.regions.weights.0.value",
        _cohort(regions={"header": "X-A", "weights": [{"value": "x", "weight": "1%"}]}),
    ),
    ("spec.stages[0].cohort.header", "stages.0.cohort.header", _cohort(values=["x"])),
    ("spec.stages[0].cohort.values[0]", "stages.0.cohort.values.0", _cohort(header="X-A", values=["x"])),
    ("spec.metrics.prometheus", "metrics.prometheus", {}),
    ("spec.metrics.statusLabel", "metrics.statusLabel", {}),
    ("spec.metrics.arms.label", "metrics.arms.label", {"metrics.arms": {"by": "label", "stable": "a", "canary": "b"}}),
    ("spec.metrics.arms.stable", "metrics.arms.stable", {"metrics.arms": {"by": "label", "label": "v", "canary": "b"}}),
    ("spec.haltRules[0].name", "haltRules.0.name", {"haltRules": [RULE]}),
    ("spec.haltRules[0].preset", "haltRules.0.preset", {"haltRules": [RULE]}),
    ("spec.haltRules[0].source", "haltRules.0.source", {"haltRules": [RULE]}),
    ("spec.haltRules[0].server", "haltRules.0.server", {"haltRules": [RULE]}),
    (
        "spec.haltRules[0].alert.labels.severity",
        "haltRules.0.alert.labels.severity",
        {"haltRules": [{"name": "alerts", "alert": {"labels": {"severity": "critical"}}}]},
    ),
    ("spec.haltRuleSets[0].name", "haltRuleSets.0.name", {"haltRuleSets": [{"name": "gold"}]}),
    ("spec.workload.identityPaths[0]", "workload.identityPaths.0", {"workload.identityPaths": ["/spec/a"]}),
)
"""Fields that reach one of those places: path in the YAML, path of the change, changes it needs beside it."""
HOSTILE_PATTERN = ("spec.stages[0].cohort.pattern", "stages.0.cohort.pattern", _cohort(header="X-A", pattern="x"))
"""The one field of them in which people write more than plain words."""
