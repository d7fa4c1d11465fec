"""What a command asks Prometheus about a rollout: which server, with which credentials, and which series are whose."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from canary_rollout.cli.errors import CliError, Exit
from canary_rollout.cli.options import own_presets
from canary_rollout.cli.session import Connection
from canary_rollout.kube.port import (
    CLUSTER_HALT_RULE_SETS,
    DEPLOYMENTS,
    HALT_RULE_SETS,
    PODS,
    ApiError,
    NotFoundError,
    Object,
)
from canary_rollout.metrics.client import PrometheusClient
from canary_rollout.metrics.errors import MetricsError, PresetError, QueryError
from canary_rollout.metrics.locate import source_of
from canary_rollout.metrics.pods import POD_SUFFIX
from canary_rollout.metrics.presets import Presets
from canary_rollout.metrics.presets.formula import Query
from canary_rollout.metrics.request import MetricRequest
from canary_rollout.metrics.target import NoSecrets, Target, targets_of
from canary_rollout.model.effective import resolve
from canary_rollout.model.explain import validation_problems
from canary_rollout.model.rule_sets import HaltRuleSetSpec
from canary_rollout.model.spec import CanaryRolloutSpec, Stage
from canary_rollout.model.units import parse_instant
from canary_rollout.workloads.view import app_version, own_pods, pod_selector, replica_sets_of

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Login:
    """What the command line says about Prometheus.

    Attributes:
        url: address instead of the spec's main one; empty: the spec's.
        headers: sent with every query of the main server.
        authorities: certificates (PEM) to trust.
        verify: whether its certificate is checked.
        own: preset sets of the user's own.
    """

    url: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    authorities: str = field(default="", repr=False)
    verify: bool = True
    own: tuple[Presets, ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Login":
        """Read the options of :func:`canary_rollout.cli.options.prometheus_options`.

        Raises:
            click.UsageError: one of them makes no sense.
            CliError: a file cannot be read.
        """
        url = (given["prometheus"] or "").rstrip("/")
        if url and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", url):
            raise click.UsageError("--prometheus: this is no address: write http://host:port without credentials")
        headers = [_header(text) for text in given["headers"]]
        if given["bearer_token_file"]:
            headers.append(("Authorization", f"Bearer {_secret(given['bearer_token_file'])}"))
        authorities = _text(given["ca_file"]) if given["ca_file"] else ""
        own = tuple(own_presets(given["presets"]))
        return cls(url, tuple(headers), authorities, verify=not given["insecure"], own=own)

    def over(self, target: Target) -> Target:
        """The server of a spec with what the command line says on top."""
        said = {name.lower() for name, _ in self.headers}
        kept = tuple((name, value) for name, value in target.headers if name.lower() not in said)
        return replace(
            target,
            url=self.url or target.url,
            headers=(*kept, *self.headers),
            authorities=self.authorities or target.authorities,
            verify=target.verify and self.verify,
            problem="" if self.headers else target.problem,
        )


@dataclass(frozen=True, slots=True)
class Subject:
    """A rollout that is asked about.

    Attributes:
        spec: its effective spec.
        targets: servers by name, the main one as ``""``.
        own: preset sets of the user's own.
        replica_sets: of stable's and of the canary's pods; empty sets where they are not told apart by pod.
        app_versions: of both, as their pod templates name them.
        created: by pod name, when it was created, POSIX seconds.
        status: the CanaryRollout's status; empty without a cluster.
        problem: what could not be read; empty if everything could.
    """

    namespace: str
    name: str
    spec: CanaryRolloutSpec
    targets: Mapping[str, Target]
    own: tuple[Presets, ...] = ()
    replica_sets: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
    app_versions: tuple[str, str] = ("", "")
    created: Mapping[str, float] = field(default_factory=dict)
    status: Object = field(default_factory=dict)
    problem: str = ""

    def request(self, stage: Stage | None, **more: Any) -> MetricRequest:
        """What to ask in a stage.

        Raises:
            UnsafeValueError: a name that must not reach a query.
        """
        return MetricRequest.of(
            self.namespace,
            self.name,
            self.spec,
            stage,
            *self.replica_sets,
            app_versions=self.app_versions,
            targets=self.targets,
            own=self.own,
            **more,
        )

    @property
    def by_pod(self) -> bool:
        """Whether the versions are told apart by the names of their pods."""
        try:
            arms = source_of(self.request(None)).of.arms
        except PresetError as error:
            raise CliError(str(error), Exit.USAGE) from error
        return arms == "configured" and self.spec.metrics.arms.by == "pod"


async def subject_of_spec(namespace: str, name: str, spec: CanaryRolloutSpec, login: Login) -> Subject:
    """A rollout that is not in a cluster: no Secrets, no pods."""
    targets = dict(await targets_of(spec.metrics, NoSecrets()))
    targets[""] = login.over(targets[""])
    problem = targets[""].problem
    if problem:
        raise CliError(f"{problem} or pass them: --bearer-token-file FILE, --header NAME:VALUE", Exit.USAGE)
    return Subject(namespace, name, spec, targets, login.own)


async def subject_of_cluster(connection: Connection, rollout: Object, spec: CanaryRolloutSpec, login: Login) -> Subject:
    """A rollout of the cluster, with its pods and the credentials that its Secrets hold."""
    from canary_rollout.controller.access import Access
    from canary_rollout.controller.clock import SystemClock

    granted = await Access(connection.api, SystemClock()).granted(connection.namespace, spec.metrics)
    targets = {**granted.targets, "": login.over(granted.targets[""])}
    sides = [await _side(connection, version.deployment) for version in (spec.workload.stable, spec.workload.canary)]
    return Subject(
        connection.namespace,
        rollout["metadata"]["name"],
        spec,
        targets,
        (*login.own, *granted.own),
        (sides[0].replica_sets, sides[1].replica_sets),
        (sides[0].app_version, sides[1].app_version),
        {**sides[0].created, **sides[1].created},
        rollout.get("status") or {},
        granted.problem or sides[0].trouble or sides[1].trouble,
    )


@dataclass(frozen=True, slots=True)
class _Side:
    replica_sets: frozenset[str] = frozenset()
    app_version: str = ""
    created: Mapping[str, float] = field(default_factory=dict)
    trouble: str = ""


async def _side(connection: Connection, name: str) -> _Side:
    try:
        deployment = await connection.api.get(DEPLOYMENTS, connection.namespace, name)
        pods, _ = await connection.api.list_all(PODS, connection.namespace, labels=pod_selector(deployment))
    except NotFoundError:
        return _Side(trouble=f"Deployment {name} does not exist")
    except ApiError as error:
        return _Side(trouble=str(error))
    alive = [pod for pod in own_pods(deployment, pods) if not pod["metadata"].get("deletionTimestamp")]
    created = {
        pod["metadata"]["name"]: parse_instant(pod["metadata"].get("creationTimestamp") or "1970-01-01T00:00:00Z")
        for pod in alive
    }
    owners = frozenset(owner for pod in alive for owner in replica_sets_of(pod))
    return _Side(owners, app_version(deployment), created)


async def effective(connection: Connection, spec: CanaryRolloutSpec) -> tuple[CanaryRolloutSpec, str]:
    """The spec with the rules of the sets it refers to, and why one of them is missing (else empty)."""
    found: dict[tuple[str, str], HaltRuleSetSpec | str] = {}
    for reference in spec.halt_rule_sets:
        clusterwide = reference.kind == CLUSTER_HALT_RULE_SETS.kind
        resource = CLUSTER_HALT_RULE_SETS if clusterwide else HALT_RULE_SETS
        try:
            raw = await connection.api.get(resource, None if clusterwide else connection.namespace, reference.name)
            found[reference.kind, reference.name] = HaltRuleSetSpec.model_validate(raw.get("spec") or {})
        except ApiError as error:
            found[reference.kind, reference.name] = str(error)
        except ValidationError as error:
            found[reference.kind, reference.name] = f"it is not valid: {validation_problems(error)[0]}"
    result = resolve(spec, lambda reference: found[reference.kind, reference.name])
    return result.spec, result.problems[0] if result.problems else ""


def found_in_the_past(subject: Subject, client: PrometheusClient, start: float, end: float) -> Subject:
    """The subject with the ReplicaSets of both Deployments that had pods between ``start`` and ``end`` (POSIX seconds).

    Raises:
        QueryError: Prometheus did not answer.
    """
    return with_replica_sets(subject, pods_of_the_past(subject, client, start, end)) if subject.by_pod else subject


def pods_of_the_past(subject: Subject, client: PrometheusClient, start: float, end: float) -> frozenset[str]:
    """Names of the pods in the rollout's namespace that counted requests between ``start`` and ``end`` (POSIX seconds).

    Raises:
        QueryError: Prometheus did not answer.
    """
    of = source_of(subject.request(None)).of
    assert of.traffic is not None  # noqa: S101 - a source has traffic
    query = Query(f'{of.labels.namespace}="{subject.namespace}"', (of.labels.namespace,), pod=of.labels.pod)
    match = query.selector(of.traffic.requests)
    timeout = 4 * subject.spec.metrics.timeout
    return frozenset(client.label_values(of.labels.pod, match, start, end, timeout))


def with_replica_sets(subject: Subject, pods: frozenset[str]) -> Subject:
    """The subject with the ReplicaSets of both Deployments that these pods belong to, by their names."""
    workload = subject.spec.workload
    stable, canary = (
        frozenset(_replica_sets(pods, version.deployment)) for version in (workload.stable, workload.canary)
    )
    return replace(subject, replica_sets=(stable, canary))


def _replica_sets(pods: frozenset[str], deployment: str) -> Iterator[str]:
    pattern = re.compile(rf"({re.escape(deployment)}-[a-z0-9]{{1,10}})-[a-z0-9]{{{POD_SUFFIX}}}")
    for pod in pods:
        if found := pattern.fullmatch(pod):
            yield found[1]


@contextmanager
def asked(target: Target) -> Iterator[None]:
    """Turn a Prometheus that does not answer into a sentence that says what to do.

    Raises:
        CliError: instead of a QueryError.
    """
    try:
        yield
    except QueryError as error:
        raise CliError(unreachable(target, str(error)), Exit.UNREACHABLE) from error
    except MetricsError as error:
        raise CliError(str(error), Exit.USAGE) from error


def unreachable(target: Target, why: str) -> str:
    """The sentence for a Prometheus that does not answer."""
    return (
        f"{target.url} did not answer from here ({why}); where only the cluster reaches it, forward a port to it "
        "(kubectl -n monitoring port-forward service/prometheus 9090) and pass --prometheus http://127.0.0.1:9090"
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    value = value.strip()
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,62}", name) or not re.fullmatch(r"[ -~]{1,4096}", value):
        raise click.UsageError(f"--header: {name[:40]!r} is no header: write Name: value")
    return name, value


def _secret(file: str) -> str:
    token = _text(file).strip()
    if not re.fullmatch(r"[!-~]{1,16384}", token):
        raise CliError(f"{file} holds no token: it is one line of printable ASCII", Exit.USAGE)
    return token


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{file} cannot be read: {error}", Exit.USAGE) from error
