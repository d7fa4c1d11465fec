"""Addresses of pods and Services, and the claim that keeps two local clusters out of each other's way.

EndpointSlices refuse loopback addresses, so a pod's address in the API is ``10.P.a.b`` while its processes listen on
``127.P.a.b``, which every process on Linux may bind. Services have their ClusterIPs from ``127.S.0.0/16``. The first
cluster of a machine has P=244 and S=96, the next ones count on; a listening socket is the claim, so the kernel gives
it back whatever happens to its owner.
"""

import os
import socket
from dataclasses import dataclass

from .errors import LocalClusterError

SLOTS = 40
CLAIM_PORT = 10_250
FIRST_POD_OCTET, FIRST_SERVICE_OCTET = 244, 96
PODS_PER_CLUSTER = 250 * 250
OWN_NETWORK = "CANARY_ROLLOUT_OWN_NETWORK"
"""Environment variable: set where this process runs in a network of its own, in which 10.0.0.0/8 is local. Then pods
listen on their real addresses, and gateways that nobody here wrote can dial what EndpointSlices say."""


def listen_address(pod_ip: str) -> str:
    """Map a pod's address as the API shows it to the one its processes listen on: 10.a.b.c to 127.a.b.c."""
    if os.environ.get(OWN_NETWORK):
        return pod_ip
    return "127." + pod_ip.removeprefix("10.") if pod_ip.startswith("10.") else pod_ip


@dataclass(frozen=True)
class AddressPlan:
    """The ranges of one cluster and the socket that claims them (``claim`` must stay open)."""

    slot: int
    claim: socket.socket

    @property
    def pod_prefix(self) -> str:
        """First two octets of the pod addresses as the API shows them, ``"10.244"``."""
        return f"10.{FIRST_POD_OCTET - self.slot}"

    @property
    def service_range(self) -> str:
        """The range for kube-apiserver's ``--service-cluster-ip-range``."""
        return f"127.{FIRST_SERVICE_OCTET + self.slot}.0.0/16"

    @property
    def node_address(self) -> str:
        """Address of the node itself, in the API too (unlike a pod's it may be loopback there)."""
        return f"127.{FIRST_POD_OCTET - self.slot}.0.1"


def claim_addresses() -> AddressPlan:
    """Claim the first free slot of this machine.

    Raises:
        LocalClusterError: all are taken, or this system cannot bind 127.244.0.1 (macOS).
    """
    for slot in range(SLOTS):
        claim = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        plan = AddressPlan(slot, claim)
        try:
            claim.bind((plan.node_address, CLAIM_PORT))
            claim.listen(1)
        except OSError as error:
            claim.close()
            if error.errno is not None and error.errno == 99:  # EADDRNOTAVAIL
                raise LocalClusterError(
                    f"this system cannot bind {plan.node_address}: the local cluster needs Linux, where all of "
                    "127.0.0.0/8 is the machine's own; elsewhere use kind or k3d and CONTEXT=<name>"
                ) from error
            continue
        return plan
    raise LocalClusterError(f"all {SLOTS} address ranges for local clusters are in use: stop one of the clusters")


class PodAddresses:
    """Gives pod addresses in turn, so that a freed one is not taken again at once."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._next = 0
        self._used: set[str] = set()

    def take(self) -> str:
        """Return an unused address ``10.P.a.b``."""
        for _ in range(PODS_PER_CLUSTER):
            third, fourth = divmod(self._next, 250)
            self._next = (self._next + 1) % PODS_PER_CLUSTER
            # .0.1 is the node; no octet of 0 or 255, which programs may take for networks and broadcasts.
            address = f"{self._prefix}.{third + 1}.{fourth + 2}"
            if address not in self._used:
                self._used.add(address)
                return address
        raise LocalClusterError(f"all {PODS_PER_CLUSTER} pod addresses are in use")

    def give_back(self, address: str) -> None:
        """Free an address."""
        self._used.discard(address)
