"""Envoy's listener, clusters and bootstrap. The clusters change with revisions and addresses, never with a weight.

A weight below 100 % is a lease, and Envoy itself ends it: the canary is reached through an aggregate of a *checked*
canary and stable. What is checked is not the app (a dead canary must be seen as errors) but the agent's lease page: 503
there, or no answer for most of ``staleAfter``, and stable takes over. At 100 % the canary is reached without it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from canary_rollout.traffic.envoy.document import EnvoyDocument, Upstream
from canary_rollout.traffic.envoy.routes import ARMS, CHOSEN, CLIENT_HEADER, REGIONAL, ROUTES, Json, cluster
from canary_rollout.traffic.nginx import validate

CHECK_EVERY: Final = 0.5
"""Seconds between two looks at the lease, and seconds one may take."""
LATENCY_BUCKETS: Final = (5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0)
"""Milliseconds; the same bounds as the nginx agent's histogram."""
STAT_PREFIX: Final = "ingress"
_REGEX: Final = 200_000
"""Instructions of the largest regular expression: 256 tenants of 64 characters are 17,000. Envoy's own bound is 100, which
two long names exceed; matching takes linear time whatever the size."""

_API: Final = "type.googleapis.com/envoy"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one Envoy stands.

    Attributes:
        root: directory shared by agent and Envoy.
        addresses: addresses Envoy listens on.
        admin: port of Envoy's admin page on loopback.
        host: loopback address of both.
        page: port of the agent's pages.
    """

    root: Path
    addresses: tuple[str, ...]
    host: str
    admin: int
    page: int


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host.strip("[]"), "port_value": port}}


def _source(root: Path, kind: str) -> Json:
    directory = root / "xds" / kind
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": f"{directory}/{kind}.json", "watched_directory": {"path": f"{directory}"}},
    }


def discovery(version: str, resources: list[Json]) -> str:
    """The file of one kind of resource."""
    return json.dumps({"version_info": version, "resources": resources}, sort_keys=True)


def digest(resources: list[Json]) -> str:
    """A version that changes exactly with the resources."""
    return hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()[:16]


def bootstrap(place: Place, name: str) -> Json:
    """What Envoy is started with (``-c bootstrap.json``); everything else comes by files."""
    return {
        "node": {"id": name, "cluster": "canary-rollout"},
        "admin": {"address": _address(place.host, place.admin)},
        "dynamic_resources": {"lds_config": _source(place.root, "lds"), "cds_config": _source(place.root, "cds")},
        "layered_runtime": {
            "layers": [{"name": "regex", "static_layer": {"re2.max_program_size.error_level": _REGEX}}]
        },
        "stats_flush_interval": "1s",
        "stats_config": {
            "histogram_bucket_settings": [{"match": {"suffix": "upstream_rq_time"}, "buckets": list(LATENCY_BUCKETS)}]
        },
    }


def listeners(document: EnvoyDocument, place: Place) -> list[Json]:
    """One listener for each address."""
    filters = [{"name": "http", "typed_config": _manager(place) | _client_address(document)}]
    return [
        {
            "@type": f"{_API}.config.listener.v3.Listener",
            "name": f"{number}",
            "address": _address(address, document.listen),
            "filter_chains": [{"filters": filters}],
        }
        for number, address in enumerate(place.addresses)
    ]


def _manager(place: Place) -> Json:
    """What handles a connection: routes by rds, headers as they came, and the client's address in one of them."""
    return {
        "@type": f"{_API}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": STAT_PREFIX,
        "rds": {"config_source": _source(place.root, "rds"), "route_config_name": ROUTES},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{_API}.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            }
        ],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "early_header_mutation_extensions": [
            {
                "name": "envoy.http.early_header_mutation.header_mutation",
                "typed_config": {
                    "@type": f"{_API}.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                    "mutations": [
                        {
                            "append": {
                                "header": {"key": CLIENT_HEADER, "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
                                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                            }
                        }
                    ],
                },
            }
        ],
    }


def _client_address(document: EnvoyDocument) -> Json:
    """Whose address is the client's: the one that connects, or what trusted proxies say of it."""
    trusted = [validate.network("trustedProxies", one) for one in document.trusted_proxies]
    if not trusted:
        return {"use_remote_address": True}
    networks = [{"address_prefix": one.partition("/")[0], "prefix_len": int(one.partition("/")[2])} for one in trusted]
    return {
        "use_remote_address": False,
        "original_ip_detection_extensions": [
            {
                "name": "envoy.http.original_ip_detection.xff",
                "typed_config": {
                    "@type": f"{_API}.extensions.http.original_ip_detection.xff.v3.XffConfig",
                    "xff_trusted_cidrs": {"cidrs": networks},
                    "skip_xff_append": False,
                },
            }
        ],
    }


def stat_name(version: str, arm: str, revision: str) -> str:
    """Name of a cluster's series: version, arm and revision (without dots, which separate parts of a name)."""
    return f"{version}_{arm}_{revision.replace('.', '_')}"


def checked_name(arm: str, revision: str) -> str:
    """Name of the series of a checked canary, among them whether its lease is held (``membership_healthy``)."""
    return stat_name("checked", arm, revision)


def arms(document: EnvoyDocument) -> tuple[str, ...]:
    """The arms a document may ever need, so that clusters do not change with its weight or its cohort's members."""
    return ARMS if document.cohort is not None and document.cohort.regions is not None else ARMS[: ARMS.index(REGIONAL)]


def _plain(name: str, upstream: Upstream, stats: str, check: Json | None = None, health: Json | None = None) -> Json:
    address = validate.address("upstream", upstream.address)
    endpoint: Json = {"address": _address(address, upstream.port)}
    if health is not None:
        endpoint["health_check_config"] = health
    made: Json = {
        "@type": f"{_API}.config.cluster.v3.Cluster",
        "name": name,
        "alt_stat_name": stats,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": 65536, "max_pending_requests": 65536, "max_requests": 65536, "max_retries": 65536}
            ]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_API}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": "4s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }
    if check is not None:
        made["health_checks"] = [check]
        made["common_lb_config"] = {"healthy_panic_threshold": {"value": 0}}
    return made


def checks_until_over(stale_after: float) -> int:
    """Looks without an answer after which the lease is over for sure: each takes a second at most, the last renewal is a quarter old."""
    return max(1, int(stale_after - min(30.0, stale_after / 4) - 1))


def clusters(document: EnvoyDocument, place: Place) -> list[Json]:
    """For each arm: stable, the canary, the checked canary, and the lease over the last two.

    Raises:
        UnsafeValueError: an address that no Service has.
    """
    seconds = f"{CHECK_EVERY}s"
    check: Json = {
        "timeout": seconds,
        "interval": seconds,
        "no_traffic_interval": seconds,
        "unhealthy_interval": seconds,
        "unhealthy_threshold": checks_until_over(document.stale_after),
        "healthy_threshold": 1,
        "http_health_check": {"path": "/lease"},
    }
    health: Json = {"address": _address(place.host, place.page)}
    made = []
    for arm in arms(document):
        stable, canary = cluster("stable", arm), cluster("canary", arm)
        made += [
            _plain(stable, document.stable, stat_name("stable", arm, document.stable_revision)),
            _plain(canary, document.canary, stat_name("canary", arm, document.revision)),
            _plain(f"checked-{arm}", document.canary, checked_name(arm, document.revision), check, health),
            {
                "@type": f"{_API}.config.cluster.v3.Cluster",
                "name": cluster("canary", arm, leased=True),
                "alt_stat_name": stat_name("leased", arm, document.revision),
                "connect_timeout": "5s",
                "lb_policy": "CLUSTER_PROVIDED",
                "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
                "cluster_type": {
                    "name": "envoy.clusters.aggregate",
                    "typed_config": {
                        "@type": f"{_API}.extensions.clusters.aggregate.v3.ClusterConfig",
                        "clusters": [f"checked-{arm}", stable],
                    },
                },
            },
        ]
    return made


__all__ = ["CHOSEN", "Place", "arms", "bootstrap", "clusters", "digest", "discovery", "listeners", "stat_name"]
