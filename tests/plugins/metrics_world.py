"""The rollouts that the known Prometheus has seen, and what is true about them."""

from collections.abc import Iterator
from dataclasses import dataclass

from known_metrics import Traffic, agent, app, histogram, level, line

from canary_rollout.local.prometheus import Prometheus

SLOW = (0.1, 0.2, 0.2, 0.3, 0.1, 0.1)

STABLE_POD = Traffic(45.0, 0.45)
CANARY = Traffic(10.0, 0.5, SLOW, 0.4)
OLD_CANARY = Traffic(20.0, 20.0, (0.0, 0.0, 0.0, 0.0, 0.0, 1.0), 3.0)
HEALTHY = Traffic(9.0)
IDLE = Traffic(0.0)
MEMBERS = Traffic(6.0, 3.0, (0.0, 0.0, 0.0, 0.0, 1.0, 0.0), 0.9)

LONG_STABLE = f"{'s' * 50}-5d4c3b2a19"
LONG_CANARY = f"{'c' * 50}-9f8e7d6c5b"


@dataclass(frozen=True)
class Known:
    """Where the Prometheus is, the time at which its history ends, and the server itself."""

    url: str
    end: int
    server: Prometheus


def pod(namespace: str, name: str, service: str, **more: str) -> dict[str, str]:
    """The labels that Prometheus' Kubernetes discovery puts on a pod's series."""
    return {"namespace": namespace, "pod": name, "service": service, **more}


def proxy(
    version: str, cohort: str, revision: str, rollout: str = "checkout", namespace: str = "shop"
) -> dict[str, str]:
    """The labels of the agent's series."""
    return {
        "namespace": namespace,
        "pod": "proxy-5f6d-zzzzz",
        "rollout": rollout,
        "version": version,
        "cohort": cohort,
        "revision": revision,
    }


def WORLD(end: int) -> Iterator[str]:  # noqa: N802
    """Every sample there is."""
    for name in ("aaaaa", "bbbbb"):
        yield from app(pod("shop", f"checkout-6b7f9c-{name}", "checkout", track="v1"), STABLE_POD, end)
    yield from app(pod("shop", "checkout-canary-7d8e-ccccc", "checkout-canary", track="v2"), CANARY, end)
    # The same Deployment's revision before, and others that must not be mixed in.
    yield from app(pod("shop", "checkout-canary-old1-ddddd", "elsewhere", track="v0"), OLD_CANARY, end)
    yield from app(pod("shop", "checkout-canary-7d8e-x-eeeee", "elsewhere", track="v2"), OLD_CANARY, end)
    yield from app(pod("other", "checkout-canary-7d8e-ccccc", "checkout-canary", track="v2"), OLD_CANARY, end)
    for name in ("6b7f9c-aaaaa", "canary-7d8e-ccccc"):
        yield from app(pod("fresh", f"checkout-{name}", name.split("-")[0]), HEALTHY, end)
        yield from app(pod("quiet", f"checkout-{name}", name.split("-")[0]), IDLE, end)
        yield from app(pod("code", f"checkout-{name}", name.split("-")[0]), STABLE_POD, end, status_label="code")
    # Kubernetes cuts the first part of a pod's name to 58 characters.
    yield from app(pod("long", f"{LONG_STABLE}-"[:58] + "aaaaa", "long"), STABLE_POD, end)
    yield from app(pod("long", f"{LONG_CANARY}-"[:58] + "bbbbb", "long-canary"), CANARY, end)

    yield from agent(proxy("stable", "everyone", "r1"), Traffic(90.0, 0.9), end)
    yield from agent(proxy("canary", "everyone", "r2"), CANARY, end)
    yield from agent(proxy("canary", "internal", "r2"), MEMBERS, end)
    yield from agent(
        proxy("canary", "everyone", "r1"),
        OLD_CANARY,
        end,
    )
    yield from agent(proxy("stable", "everyone", "r1", "healthy"), HEALTHY, end)
    yield from agent(proxy("canary", "everyone", "r2", "healthy"), HEALTHY, end)
    yield from agent(proxy("stable", "everyone", "r1", "idle"), IDLE, end)
    yield from agent(proxy("canary", "everyone", "r2", "idle"), IDLE, end)
    for name, denied in (("checkout-6b7f9c-aaaaa", 1.0), ("checkout-canary-7d8e-ccccc", 7.0)):
        yield from line("denied_total", pod("shop", name, "checkout"), denied, end)
    yield from proxies(end)
    yield from resources(end)
    yield from tenants(end)


def counted(
    name: str, labels: dict[str, str], traffic: Traffic, end: int, good: dict[str, str], bad: dict[str, str]
) -> Iterator[str]:
    """Requests of one version with a label that tells failures apart."""
    yield from line(name, {**labels, **good}, traffic.rate - (traffic.failed or 0.0), end)
    yield from line(name, {**labels, **bad}, traffic.failed or 0.0, end)


BOTH = (("stable", Traffic(90.0, 0.9)), ("canary", CANARY))


def proxies(end: int) -> Iterator[str]:
    """What each source's exporter says of the same traffic: 90 and 10 requests a second, 1 % and 5 % failed.

    Every one also has a neighbour whose numbers must not be mixed in.
    """
    neighbour = ("other", OLD_CANARY)
    for who, traffic in (*BOTH, neighbour):
        service = {"stable": "checkout", "canary": "checkout-canary", "other": "checkout-canary-x"}[who]
        shop = "shop"

        ingress = {"namespace": shop, "ingress": "checkout", "service": "checkout"}
        ingress["canary"] = "" if who == "stable" else f"shop-{service}-80"
        yield from counted(
            "nginx_ingress_controller_requests", ingress, traffic, end, {"status": "200"}, {"status": "504"}
        )
        yield from histogram("nginx_ingress_controller_request_duration_seconds", ingress, traffic, end)

        istio = {"reporter": "source", "destination_workload_namespace": shop, "destination_workload": service}
        for reporter in ("source", "destination"):  # both report; only one counts
            labels = {**istio, "reporter": reporter}
            yield from counted(
                "istio_requests_total",
                labels,
                traffic,
                end,
                {"response_code": "200", "response_flags": "-"},
                {"response_code": "504", "response_flags": "UT"},
            )
            yield from histogram("istio_request_duration_milliseconds", labels, traffic, end, scale=1000)

        cluster = {"envoy_cluster_name": f"shop_{service}_80", "namespace": "projectcontour", "pod": "envoy-x"}
        yield from counted(
            "envoy_cluster_upstream_rq_xx",
            cluster,
            traffic,
            end,
            {"envoy_response_code_class": "2"},
            {"envoy_response_code_class": "5"},
        )
        yield from line("envoy_cluster_upstream_rq_timeout", cluster, traffic.failed or 0.0, end)
        yield from histogram("envoy_cluster_upstream_rq_time", cluster, traffic, end, scale=1000)

        traefik = {"service": f"shop-{service}-80@kubernetescrd", "protocol": "http", "method": "GET"}
        yield from counted("traefik_service_requests_total", traefik, traffic, end, {"code": "200"}, {"code": "504"})
        yield from histogram("traefik_service_request_duration_seconds", traefik, traffic, end)

        backend = {"proxy": f"shop_svc_{service}_80"}
        yield from counted(
            "haproxy_backend_http_responses_total", backend, traffic, end, {"code": "2xx"}, {"code": "5xx"}
        )
        yield from level("haproxy_backend_total_time_average_seconds", backend, traffic.mean, end)

        linkerd = {"direction": "outbound", "dst_namespace": shop, "dst_deployment": service}
        yield from counted(
            "response_total",
            linkerd,
            traffic,
            end,
            {"classification": "success", "status_code": "200"},
            {"classification": "failure", "status_code": "504"},
        )
        yield from histogram("response_latency_ms", linkerd, traffic, end, scale=1000)

        replica_set = {"stable": "6b7f9c", "canary": "7d8e", "other": "7d8e-x"}[who]
        name = service if who != "other" else "checkout-canary"
        otel = {"k8s_namespace_name": shop, "k8s_pod_name": f"{name}-{replica_set}-aaaaa", "service_name": "checkout"}
        otel["service_version"] = {"stable": "v1", "canary": "v2", "other": "v0"}[who]
        for status, rate in (("200", traffic.rate - (traffic.failed or 0.0)), ("504", traffic.failed or 0.0)):
            labels = {**otel, "http_response_status_code": status}
            share = Traffic(rate, None, traffic.latencies, traffic.mean)
            yield from histogram("http_server_request_duration_seconds", labels, share, end)

        version = {"namespace": shop, "version": otel["service_version"]}
        yield from counted(
            "nginx_http_response_count_total", version, traffic, end, {"status": "200"}, {"status": "504"}
        )
        yield from histogram("nginx_http_response_time_seconds_hist", version, traffic, end)


def resources(end: int) -> Iterator[str]:
    """Pods, pools, app signals and web vitals of a rollout in the namespace ``things``."""
    for replica_set, factor in (("checkout-6b7f9c", 1.0), ("checkout-canary-7d8e", 2.0)):
        service = replica_set.rsplit("-", 1)[0]
        for number, name in enumerate(("aaaaa", "bbbbb"), 1):
            labels = pod("things", f"{replica_set}-{name}", service)
            yield from _of_pod(labels, factor, number, end)
        version = "1.4" if factor == 1.0 else "1.5"
        page = {"app": "checkout", "version": version}
        traffic = Traffic(10.0, None, SLOW if factor == 2.0 else STABLE_POD.latencies)
        for vital in ("web_vitals_lcp_seconds", "web_vitals_inp_seconds", "web_vitals_cls"):
            yield from histogram(vital, page, traffic, end)
    # One of the canary's pods is of another version.
    for name, version in (("6b7f9c-aaaaa", "1.4"), ("canary-7d8e-aaaaa", "1.5"), ("canary-7d8e-bbbbb", "1.4")):
        yield from level("app_build_info", pod("things", f"checkout-{name}", "x", version=version), 1.0, end)
    for category, namespace in (("security", "things"), ("security", "others"), ("capacity", "things")):
        labels = {"alertname": f"{category}-{namespace}", "alertstate": "firing", "category": category}
        yield from level("ALERTS", {**labels, "namespace": namespace}, 1.0, end)
    pending = {"alertname": "soon", "alertstate": "pending", "category": "security", "namespace": "things"}
    yield from level("ALERTS", pending, 1.0, end)


def _of_pod(labels: dict[str, str], factor: float, number: int, end: int) -> Iterator[str]:
    for container, share in (("app", 0.75), ("sidecar", 0.25), ("", 1.0), ("POD", 0.01)):
        inside = {**labels, "container": container}
        yield from level("container_memory_working_set_bytes", inside, 100.0 * factor * number * share, end)
        yield from line("container_cpu_usage_seconds_total", inside, 0.1 * factor * number * share, end)
        yield from line("container_cpu_cfs_periods_total", inside, 10.0 * share, end)
        yield from line("container_cpu_cfs_throttled_periods_total", inside, factor * share, end)
    for container in ("app", "sidecar"):
        inside = {**labels, "container": container}
        yield from level("kube_pod_container_resource_limits", {**inside, "resource": "memory"}, 500.0, end)
        yield from level("kube_pod_container_resource_limits", {**inside, "resource": "cpu"}, 0.5, end)
        yield from line("kube_pod_container_status_restarts_total", inside, 0.01 * factor, end)
    yield from level("hikaricp_connections_active", labels, 4.0 * factor, end)
    yield from level("hikaricp_connections_max", labels, 10.0, end)
    yield from level("hikaricp_connections_pending", labels, factor * number, end)
    yield from line("cache_requests_total", {**labels, "result": "hit"}, 9.0 / factor, end)
    yield from line("cache_requests_total", {**labels, "result": "miss"}, 10.0 - 9.0 / factor, end)
    yield from line("log_messages_total", {**labels, "level": "error"}, 0.1 * factor, end)
    yield from line("log_messages_total", {**labels, "level": "info"}, 5.0, end)
    for series, part, result in (
        ("transactions_total", 0.01, "failed"),
        ("approvals_total", 0.1, "denied"),
        ("engine_requests_total", 0.02, "timeout"),
    ):
        yield from line(series, {**labels, "result": result}, 10.0 * part * factor, end)
        yield from line(series, {**labels, "result": "ok"}, 10.0 - 10.0 * part * factor, end)
    yield from line("data_inconsistencies_total", labels, 0.02 * factor, end)


def tenants(end: int) -> Iterator[str]:
    """Requests by bucket of tenants, as the agent of a sticky rollout counts them."""
    for version, revision, bucket, rate, failed in (
        ("stable", "r1", "70", 4.0, 0.4),
        ("stable", "r0", "70", 1.0, 0.0),
        ("stable", "r1", "71", 2.0, 0.0),
        ("canary", "r2", "7", 3.0, 1.0),
        ("canary", "r1", "8", 9.0, 9.0),
    ):
        labels = {"namespace": "shop", "pod": "proxy-5f6d-zzzzz", "rollout": "checkout"}
        labels |= {"version": version, "revision": revision, "bucket": bucket}
        yield from line("canary_bucket_requests_total", labels, rate, end)
        yield from line("canary_bucket_errors_total", labels, failed, end)
