"""Strings that would do harm where a CanaryRollout's fields end up, and the fields that end up there."""

from typing import Any

from rollouts import RULE
from wrong_rollouts.bad import cohort, stages

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
    (
        "spec.metrics.access.headers[0].name",
        "metrics.access.headers.0.name",
        {"metrics.access": {"headers": [{"name": "X-A", "value": "a"}]}},
    ),
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
    ("spec.stages[0].name", "stages.0.name", {"stages": stages("100%")}),
    ("spec.stages[0].cohort.cookie", "stages.0.cohort.cookie", cohort(values=["x"])),
    ("spec.stages[0].cohort.prefixes[0]", "stages.0.cohort.prefixes.0", cohort(header="X-A", prefixes=["x"])),
    (
        "spec.stages[0].cohort.regions.header",
        "stages.0.cohort.regions.header",
        cohort(regions={"header": "X-A", "weights": [{"value": "x", "weight": "1%"}]}),
    ),
    (
        "spec.stages[0].cohort.regions.weights[0].value",
        "stages.0.cohort.regions.weights.0.value",
        cohort(regions={"header": "X-A", "weights": [{"value": "x", "weight": "1%"}]}),
    ),
    ("spec.stages[0].cohort.header", "stages.0.cohort.header", cohort(values=["x"])),
    ("spec.stages[0].cohort.values[0]", "stages.0.cohort.values.0", cohort(header="X-A", values=["x"])),
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
HOSTILE_PATTERN = ("spec.stages[0].cohort.pattern", "stages.0.cohort.pattern", cohort(header="X-A", pattern="x"))
"""The one field of them in which people write more than plain words."""
