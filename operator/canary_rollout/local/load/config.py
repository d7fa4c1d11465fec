"""What load is made, and the requests that make it."""

import random
import re
from dataclasses import dataclass
from itertools import accumulate

from canary_rollout.errors import CanaryRolloutError

_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")


class LoadConfigError(CanaryRolloutError):
    """A setting of the load generator that makes no sense; the message names it."""


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """What to send, where, how often.

    Attributes:
        targets: ``(address, port)`` pairs; connections are dealt out among them.
        rate: requests per second, whatever the answers take (open loop).
        connections: keep-alive connections, all open all the time and used in turn.
        tenants: number of tenants; their ids are the same in every run.
        zipf: exponent of the tenants' popularity; 0: all alike.
        tenant_header: header that names the tenant; empty: none is sent.
        cohort_tenants: that many of the tenants also send ``cohort_header: cohort_value``.
        cohort_header: see ``cohort_tenants``.
        cohort_value: see ``cohort_tenants``.
        path: what is asked for.
        host: the ``Host`` header; empty: the target's address.
        timeout: seconds until a request counts as a transport error.
        canary: name of the canary's Deployment: answers of its pods are the arm ``canary``, others ``stable``.
        seed: of the choice of tenants.
    """

    targets: tuple[tuple[str, int], ...]
    rate: float = 400.0
    connections: int = 32
    tenants: int = 5000
    zipf: float = 0.0
    tenant_header: str = "X-Tenant-ID"
    cohort_tenants: int = 0
    cohort_header: str = "X-Cohort"
    cohort_value: str = "internal"
    path: str = "/"
    host: str = ""
    timeout: float = 10.0
    canary: str = "checkout-canary"
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.targets:
            raise LoadConfigError("name at least one target, as in 127.0.0.1:8080")
        for name, low, high in (
            ("rate", 0.01, 100_000),
            ("connections", 1, 10_000),
            ("tenants", 1, 1_000_000),
            ("zipf", 0, 5),
            ("timeout", 0.01, 3600),
            ("cohort_tenants", 0, self.tenants),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise LoadConfigError(f"{name} is {value}, but has to be between {low} and {high}")
        for header in filter(None, (self.tenant_header, self.cohort_header)):
            if not _HEADER.fullmatch(header):
                raise LoadConfigError(f"{header!r} is no name of a header")
        if not re.fullmatch(r"/[\x21-\x7e]*", self.path):
            raise LoadConfigError(f"path {self.path!r} does not begin with / or has characters that need encoding")


def tenant_name(index: int) -> str:
    """The id of a tenant; the same in every run, so that stickiness can be compared between runs."""
    return f"tenant-{index:05d}"


class Population:
    """The tenants, how often each of them asks, and what each of them sends."""

    def __init__(self, config: LoadConfig) -> None:
        self._random = random.Random(config.seed)
        self._indexes = range(config.tenants)
        weights = [(rank + 1) ** -config.zipf for rank in range(config.tenants)] if config.zipf else None
        self._cumulative = list(accumulate(weights)) if weights else None
        self._config = config
        self._cohort = frozenset(random.Random(config.seed).sample(self._indexes, config.cohort_tenants))
        self._requests: dict[int, bytes] = {}

    def pick(self) -> int:
        """The tenant of the next request."""
        if self._cumulative is None:
            return self._random.randrange(len(self._indexes))
        return self._random.choices(self._indexes, cum_weights=self._cumulative)[0]

    def request(self, tenant: int) -> bytes:
        """What this tenant sends."""
        request = self._requests.get(tenant)
        if request is None:
            request = self._requests[tenant] = self.render(tenant_name(tenant), cohort=tenant in self._cohort)
        return request

    def render(self, tenant: str, *, path: str = "", cohort: bool = False) -> bytes:
        """One request; an empty ``tenant`` sends no tenant header."""
        config = self._config
        lines = [f"GET {path or config.path} HTTP/1.1", f"Host: {config.host or config.targets[0][0]}"]
        if config.tenant_header and tenant:
            lines.append(f"{config.tenant_header}: {tenant}")
        if cohort:
            lines.append(f"{config.cohort_header}: {config.cohort_value}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")
