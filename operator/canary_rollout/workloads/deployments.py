"""The few fields of Deployments the operator writes, each under its own field manager and nothing else."""

from dataclasses import dataclass
from typing import Final

from canary_rollout.errors import CanaryRolloutError
from canary_rollout.kube.port import DEPLOYMENTS, FIELD_MANAGER, REPLICA_SETS, InvalidError, KubeApi, Object
from canary_rollout.model.revision import copy_template, revision_of
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.workloads.view import PAUSE_MANAGER, deployment_revision, pod_selector, selector_labels

SCALE_MANAGER: Final = f"{FIELD_MANAGER}-scale"
PROMOTE_MANAGER: Final = f"{FIELD_MANAGER}-promote"
TEMPLATE_HASH: Final = "pod-template-hash"


class WorkloadError(CanaryRolloutError):
    """A Deployment that cannot be brought where it should be; the message names it and what to do."""


@dataclass(frozen=True, slots=True)
class Workloads:
    """Stable and canary of one CanaryRollout. Every method is safe to repeat."""

    api: KubeApi
    namespace: str
    spec: CanaryRolloutSpec

    @property
    def _canary(self) -> str:
        return self.spec.workload.canary.deployment

    @property
    def _stable(self) -> str:
        return self.spec.workload.stable.deployment

    async def hold_pause(self) -> Object:
        """Set ``spec.paused`` on the canary: a new template makes no pods from now on."""
        return await self._apply(self._canary, {"paused": True}, PAUSE_MANAGER)

    async def release_pause(self) -> Object:
        """Give ``spec.paused`` back; whoever else set it keeps it."""
        return await self._apply(self._canary, {}, PAUSE_MANAGER)

    async def scale_canary(self, replicas: int) -> Object:
        """Give the canary this many replicas."""
        return await self._apply(self._canary, {"replicas": replicas}, SCALE_MANAGER)

    async def copy_to_stable(self, revision: str) -> Object:
        """Bring stable's pod template to the canary's ``revision``, keeping stable's own labels and identity.

        Raises:
            WorkloadError: no template of that revision is left.
        """
        stable, canary = await self._both()
        return await self._write_stable(stable, canary, canary, revision)

    async def restore_stable(self, revision: str) -> Object:
        """Bring stable's pod template back to ``revision`` from its own history.

        Raises:
            WorkloadError: no template of that revision is left (revisionHistoryLimit).
        """
        stable, canary = await self._both()
        return await self._write_stable(stable, canary, stable, revision)

    async def _both(self) -> tuple[Object, Object]:
        stable = await self.api.get(DEPLOYMENTS, self.namespace, self._stable)
        return stable, await self.api.get(DEPLOYMENTS, self.namespace, self._canary)

    async def _template_of(self, deployment: Object, labels: frozenset[str], revision: str) -> Object:
        """The pod template with ``revision``: the Deployment's own, else one of its ReplicaSets'."""
        paths = self.spec.workload.identity_paths
        if deployment_revision(deployment, labels, paths) == revision:
            template: Object = deployment["spec"]["template"]
            return template
        found, _ = await self.api.list_all(REPLICA_SETS, self.namespace, labels=pod_selector(deployment))
        for replica_set in found:
            template = _without_hash(replica_set["spec"]["template"])
            if revision_of(template, labels, paths) == revision:
                return template
        name = deployment["metadata"]["name"]
        raise WorkloadError(
            f"Deployment {name} has no template of revision {revision} any more (it keeps "
            f"{deployment['spec'].get('revisionHistoryLimit', 10)} old ones); bring {self._stable} up to date by hand"
        )

    async def _write_stable(self, stable: Object, canary: Object, source: Object, revision: str) -> Object:
        """Replace stable's template in one JSON patch that holds only for the object it was made from.

        Server-side apply cannot do this: what another manager set and the canary lacks would stay, and the copy would
        not have the canary's revision.
        """
        labels, paths = selector_labels(stable, canary), self.spec.workload.identity_paths
        if deployment_revision(stable, labels, paths) == revision:
            return stable
        template = await self._template_of(source, labels, revision)
        wanted = copy_template(template, stable["spec"]["template"], labels, paths)
        operations = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": stable["metadata"]["resourceVersion"]},
            {"op": "replace", "path": "/spec/template", "value": wanted},
        ]
        try:
            return await self.api.json_patch(
                DEPLOYMENTS, self.namespace, self._stable, operations, manager=PROMOTE_MANAGER
            )
        except InvalidError as error:
            raise WorkloadError(f"Deployment {self._stable} refused the canary's template: {error}") from error

    async def _apply(self, name: str, fields: Object, manager: str) -> Object:
        body: Object = {"apiVersion": DEPLOYMENTS.api_version, "kind": DEPLOYMENTS.kind, "metadata": {"name": name}}
        if fields:
            body["spec"] = fields
        try:
            return await self.api.apply(DEPLOYMENTS, self.namespace, name, body, manager=manager)
        except InvalidError as error:
            # Also what an apply to a Deployment that was deleted a moment ago comes to: two fields make no new one.
            raise WorkloadError(f"Deployment {name} refused {', '.join(fields) or 'a release'}: {error}") from error


def _without_hash(template: Object) -> Object:
    metadata = template.get("metadata", {})
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != TEMPLATE_HASH}
    return {**template, "metadata": {**metadata, "labels": labels}}
