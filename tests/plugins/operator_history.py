"""Watches a world from outside and says what must never have happened. Knows nothing of the engine."""

from dataclasses import dataclass, field

from fake_api.rows import Event
from operator_world import SHOP, World
from virtual_time import now

from canary_rollout.kube.port import CANARY_ROLLOUTS, DEPLOYMENTS, PODS
from canary_rollout.model.units import parse_duration, parse_weight

MILLISECONDS = 0.002


@dataclass
class Served:
    """What the data plane served from ``at`` on, and with which pods it did."""

    at: float
    weight: int
    revision: str
    images: frozenset[str]


@dataclass
class History:
    """Everything that matters for the invariants, as it happened."""

    world: World
    commanded: bool = False
    """Whether people gave commands that skip or shorten stages."""
    served: list[Served] = field(default_factory=list)
    condemned: dict[str, float] = field(default_factory=dict)
    """Revision -> when its verdict was first stored anywhere."""
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world.api.store.listeners.append(self._changed)

    def _changed(self, event: Event) -> None:
        self._note_weight()
        if event.resource == CANARY_ROLLOUTS and event.after is not None:
            for halt in ((event.after.get("status") or {}).get("rollout") or {}).get("halts", ()):
                self.condemned.setdefault(halt["revision"], now())
        if event.resource == PODS and event.before is None:
            self._pod_made(event)
        if event.resource == DEPLOYMENTS and event.after is not None:
            self._deployment_changed(event)

    def _note_weight(self) -> None:
        for at, weight, revision in self.world.weights[len(self.served) :]:
            images = frozenset(_image(pod) for pod in self._pods("checkout-canary"))
            self.served.append(Served(at, weight, revision, images))
            if weight == 0 and len(self.served) > 1 and self.served[-2].weight == 10_000:
                self._back_on_stable(at)

    def _pods(self, name: str) -> list:
        return self.world.deployments.pods(SHOP, name)

    def _pod_made(self, event: Event) -> None:
        if event.after["metadata"]["annotations"]["fake/deployment"] != "checkout-canary":
            return
        serving = {_image(pod) for pod in self._pods("checkout-canary")} - {_image(event.after)}
        if self.world.weight > 0 and serving:
            self.wrong.append(f"{now():.2f}: a pod of {_image(event.after)} was made at weight {self.world.weight}")

    def _deployment_changed(self, event: Event) -> None:
        """The canary is let go only after the drain."""
        if event.after["metadata"]["name"] != "checkout-canary" or event.before is None:
            return
        released = event.before["spec"].get("paused") and not event.after["spec"].get("paused")
        last = next((item for item in reversed(self.served) if item.weight > 0), None)
        emptied = next((item.at for item in self.served if last is not None and item.at > last.at), None)
        if (
            not released
            or last is None
            or self.world.look(CANARY_ROLLOUTS, "checkout")["metadata"].get("deletionTimestamp")
        ):
            return
        drain = parse_duration(self.world.rollout["spec"]["workload"]["drain"])
        if emptied is None or now() - emptied < drain - 1:
            self.wrong.append(
                f"{now():.2f}: the canary was released {now() - (emptied or now()):.2f} s after its last request"
            )

    def _back_on_stable(self, at: float) -> None:
        revision = self.served[-1].revision
        status = self.world.deployment("checkout").get("status", {})
        halted = {halt["revision"] for halt in self.world.state.get("halts", ())} | set(self.condemned)
        counts = {status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")}
        if revision not in halted and counts != {2} and not self.commanded:
            self.wrong.append(f"{at:.2f}: traffic went back to a stable that is not fully updated: {counts}")

    def check(self) -> None:
        """Raise AssertionError naming everything that must not have happened."""
        self._note_weight()
        wrong = [*self.wrong, *self._rises(), *self._condemned_serve(), *self._strange_pods()]
        assert not wrong, "\n".join([*wrong, *(str(item) for item in self.served)])

    def _rises(self) -> list[str]:
        """Each rise is to the next stage and after the whole hold of the one before."""
        if self.commanded:
            return []
        stages = [(parse_weight(s["weight"]), parse_duration(s["hold"])) for s in self.world.rollout["spec"]["stages"]]
        hold, order = dict(stages), [0, *(weight for weight, _ in stages)]
        wrong, before = [], Served(0.0, 0, "", frozenset())
        for item in self.served:
            if item.weight > before.weight or (item.weight > 0 and item.revision != before.revision):
                if before.weight and item.revision != before.revision:
                    wrong.append(f"{item.at:.2f}: {item.revision} serves at {before.revision}'s weight")
                expected = order[order.index(before.weight) + 1]
                if item.weight != expected:
                    wrong.append(f"{item.at:.2f}: rose from {before.weight} to {item.weight}, not to {expected}")
                if before.weight and item.at - before.at < hold[before.weight] - MILLISECONDS:
                    wrong.append(f"{item.at:.2f}: stage {before.weight} was held {item.at - before.at:.3f} s only")
            elif 0 < item.weight < before.weight:
                wrong.append(f"{item.at:.2f}: fell from {before.weight} to {item.weight}")
            before = item
        return wrong

    def _condemned_serve(self) -> list[str]:
        """After a verdict a revision's weight falls to 0 and never rises again."""
        wrong = []
        for revision, since in self.condemned.items():
            after = [item for item in self.served if item.revision == revision and item.at > since]
            wrong += [
                f"{item.at:.2f}: condemned {revision} serves at {item.weight}" for item in after if item.weight > 0
            ]
        return wrong

    def _strange_pods(self) -> list[str]:
        """Whatever serves is of one template, and of the same one for one revision."""
        seen: dict[str, frozenset[str]] = {}
        wrong = []
        for item in self.served:
            if item.weight == 0:
                continue
            if len(item.images) != 1 or seen.setdefault(item.revision, item.images) != item.images:
                wrong.append(f"{item.at:.2f}: {item.revision} at {item.weight} is served by {sorted(item.images)}")
        return wrong


def outcome(world: World) -> dict:
    """What a rollout has come to, without the times."""
    rollout = world.look(CANARY_ROLLOUTS, "checkout")
    canary = world.deployment()
    return {
        "phase": world.phase,
        "weight": world.weight,
        "stable": world.image("checkout"),
        "canary": world.image("checkout-canary"),
        "paused": bool(canary["spec"].get("paused")),
        "finalizers": (rollout.get("metadata") or {}).get("finalizers") or [],
        "revision": world.state.get("revision"),
        "halts": [halt["revision"] for halt in world.state.get("halts", ())],
        "history": [(entry["revision"], entry["result"]) for entry in world.status.get("history", ())],
        "wanted": world.state.get("wanted"),
        "exists": bool(rollout),
    }


def _image(pod) -> str:
    return pod["spec"]["containers"][0]["image"]
