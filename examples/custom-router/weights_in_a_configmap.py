"""A router of one's own: weights go into a ConfigMap that some other data plane reads.

Installed beside the operator (``pip install ./examples/custom-router`` in its image), it is named in a CanaryRollout as
``traffic: {custom: {router: configmap, settings: [{name: configMap, value: checkout-weights}]}}``.
"""

import re
from typing import Final

from canary_rollout.kube.port import CONFIG_MAPS, MANAGED_BY, OPERATOR, ROLLOUT_LABEL, Object
from canary_rollout.model.route import Capabilities, Proof, Route, RouteView
from canary_rollout.traffic import latch
from canary_rollout.traffic.port import Rejected, RouterContext, RouterError, Watched, Written

SETTING: Final = "configMap"
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")


class ConfigMapRouter:
    """Whatever reads the ConfigMap is taken to follow at once; a real router would wait for a sign that it does."""

    def __init__(self, context: RouterContext) -> None:
        """Check the settings: they come as somebody wrote them."""
        custom = context.spec.traffic.custom
        given = {one.name: one.value for one in custom.settings} if custom is not None else {}
        self.name = given.get(SETTING, "")
        if set(given) != {SETTING} or not _NAME.fullmatch(self.name):
            raise RouterError(
                f"the configmap router wants one setting, {SETTING}, the name of a ConfigMap; found {given}"
            )
        self._context = context

    def capabilities(self) -> Capabilities:
        """0.01 % steps and nothing else."""
        return Capabilities(step=1, sticky=False, cohorts=False, proof=Proof.SETTLE)

    def problems(self) -> list[str]:
        """Refuse what would be silently left out."""
        spec = self._context.spec
        found = (
            [] if spec.traffic.sticky is None else ["the configmap router cannot keep tenants: remove traffic.sticky"]
        )
        return found + [
            f"stage {stage.name}: the configmap router knows no cohorts: remove it"
            for stage in spec.stages
            if stage.cohort
        ]

    def watched(self) -> tuple[Watched, ...]:
        """What is read; only ConfigMaps with our label are in the operator's cache."""
        return (Watched(CONFIG_MAPS, self._context.namespace, self.name),)

    def _object(self) -> Object | None:
        return self._context.reader.get(CONFIG_MAPS, self._context.namespace, self.name)

    def observe(self) -> RouteView | None:
        """What the ConfigMap says; a value that does not parse serves nobody and is written again."""
        there = self._object()
        if there is None:
            return None
        data = there.get("data") or {}
        text = data.get("weight", "")
        return RouteView(
            weight=int(text) if re.fullmatch("[0-9]{1,5}", text) else 0,
            revision=data.get("revision", ""),
            cohort=None,
            confirmed=True,
            confirmed_at=None,
            pending="",
            latch=latch.from_object(there),
            contested_by="",
            resource_version=there["metadata"]["resourceVersion"],
            mode="ConfigMap",
        )

    async def ensure(self, route: Route, *, fence: str | None) -> Written | Rejected:
        """Write it, fenced when it is a raise; nothing when it is there already."""
        if route.cohort is not None:
            return Rejected("the configmap router knows no cohorts: remove it from the stage")
        there = self._object()
        data = {"weight": f"{route.weight}", "revision": route.revision}
        notes = {latch.LATCH: latch.to_annotation(route.latch)} if route.latch is not None else {}
        if there is not None and there.get("data") == data and (there["metadata"].get("annotations") or {}) == notes:
            return Written(there["metadata"]["resourceVersion"], changed=False)
        metadata: Object = {
            "name": self.name,
            "labels": {MANAGED_BY: OPERATOR, ROLLOUT_LABEL: self._context.name},
            **({"annotations": notes} if notes else {}),
            **({"resourceVersion": fence} if fence is not None else {}),
        }
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        answer = await self._context.api.apply(CONFIG_MAPS, self._context.namespace, self.name, body)
        return Written(answer["metadata"]["resourceVersion"], changed=True)

    async def release(self) -> None:
        """The ConfigMap stays, so that its reader keeps what it has."""
