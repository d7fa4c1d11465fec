"""Workloads and ways of traffic that are refused."""

from rollouts import GONE

from wrong_rollouts.bad import CHOICES, RELIED_ON, Bad, cohort

BAD_WORKLOADS_AND_TRAFFIC: tuple[Bad, ...] = (
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
        "an unknown promotion", "spec.workload.promotion", CHOICES, {"workload.promotion": "Magic"}, "supported values"
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
        CHOICES,
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
        "one request header for both",
        "spec.traffic.requestHeaders",
        "told in different headers",
        {"traffic.requestHeaders": {"cohort": "X-V", "version": "x-v"}},
    ),
    *(
        Bad(
            f"{what} in {name}",
            f"spec.traffic.{field}.{what}",
            "this header has a meaning of its own",
            {f"traffic.{field}": {what: name}},
        )
        for field in ("requestHeaders", "responseHeaders")
        for what in ("cohort", "version")
        for name in RELIED_ON[what == "version" :: 2]
    ),
    Bad(
        "the tenant overwritten",
        "spec.traffic",
        "the header that names the tenant, or by which the client chooses, would be overwritten",
        {"traffic.sticky": {"header": "X-Tenant-ID"}, "traffic.requestHeaders": {"version": "x-tenant-id"}},
    ),
    Bad(
        "the pin overwritten",
        "spec.traffic",
        "take another name in requestHeaders",
        {"traffic.pin": {"header": "X-Canary"}, "traffic.requestHeaders": {"cohort": "X-Canary"}},
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
        cohort(values=["x"]),
    ),
    Bad(
        "a cohort by two things",
        "spec.stages[0].cohort",
        "a cohort names exactly one of header and cookie",
        cohort(header="X-A", cookie="a", values=["x"]),
    ),
    Bad(
        "a cohort of nobody",
        "spec.stages[0].cohort",
        "a cohort names somebody",
        cohort(header="X-A", values=[]),
    ),
)
