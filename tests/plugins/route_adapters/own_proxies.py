"""Our own proxies: the ConfigMap that the agents of nginx, or of Envoy, follow."""

import json
import time

from canary_rollout.kube.port import CONFIG_MAPS
from canary_rollout.traffic.envoy.document import EnvoyDocument
from canary_rollout.traffic.nginx.ack import Ack, to_lease
from canary_rollout.traffic.nginx.document import DocumentError, WeightsDocument, parse_as

from .base import ROLLOUT, Adapter, Manifest, Refused

DOCUMENTS = {"nginx": WeightsDocument, "envoy": EnvoyDocument}
KEYS = {"nginx": "weights.json", "envoy": "envoy.json"}


def adapter(kind: str) -> Adapter:
    key, name = KEYS[kind], f"{ROLLOUT}-{kind}"

    def git(share: int) -> Manifest:
        """What somebody who meddles would write: a whole document, without the operator's checksum."""
        document = {
            "schemaVersion": 1, "namespace": "shop", "rollout": ROLLOUT, "sequence": 1, "weight": share,
            "revision": "0123456789", "listen": 8080, "staleAfter": 120.0,
        }  # fmt: skip
        if kind == "nginx":
            document["config"] = "0" * 64
        else:
            document |= {version: {"address": "10.96.0.1", "port": 80} for version in ("stable", "canary")}
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {key: json.dumps(document)},
        }

    def traffic(**more: object) -> Manifest:
        return {kind: {"proxies": ["edge-1"]}, **more}

    def confirms(written: Manifest) -> Manifest | None:
        """What the agent of proxy edge-1 says once it serves this; nothing of what somebody else wrote."""
        try:
            document = parse_as(DOCUMENTS[kind], written["data"][key])
        except DocumentError:
            return None
        ack = Ack(
            pod="edge-1", config_map=name, rollout=ROLLOUT, applied=document.identity, applied_at=time.time(), config="",
            mode=kind, weight=document.weight, error="", nginx_version="1.0.0", renewed=time.time(), duration=120,
        )  # fmt: skip
        return to_lease(ack, written["metadata"]["namespace"], "")

    unknown = {kind: {"service": "nowhere"}}
    outside = {kind: {"proxies": ["vm-1"], "via": "loadBalancer"}}
    cohort = {"header": "X-A", "values": ["everyone"]}
    stages = [{"name": "all", "weight": "100%", "hold": "1h", "cohort": cohort}]
    return Adapter(
        name=f"own {kind}",
        crds=(),
        resource=CONFIG_MAPS,
        traffic=traffic(),
        git=git,
        share=lambda written: json.loads(written["data"][key])["weight"],
        blank=lambda written: {**written["data"], key: None},
        keep=lambda manifest, _: manifest,
        refused=(
            Refused("a proxy's Service that is not there", {"traffic": unknown}, "nowhere does not exist"),
            Refused("no way to the Services from outside", {"traffic": outside}, "no load balancer's IP address"),
            Refused("a cohort named like one of our own groups", {"stages": stages}, "group of our own"),
            Refused(
                "one pin value for both versions",
                {"traffic": traffic(pin={"header": "X-Canary", "canary": "yes", "stable": "YES"})},
                "both versions",
            ),
        ),
        owned=True,
        weights=(1, 50, 500, 2500, 9999, 10_000, 0),
        name_of=name,
        confirms=confirms,
    )


ADAPTERS = tuple(adapter(kind) for kind in KEYS)
