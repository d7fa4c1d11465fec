"""Takes the halt rules of the sets that a rollout refers to into the spec it goes by."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from canary_rollout.controller.memory import Memory
from canary_rollout.controller.queue import Key
from canary_rollout.kube.cache import Cache
from canary_rollout.kube.port import CLUSTER_HALT_RULE_SETS, HALT_RULE_SETS, Object, Resource
from canary_rollout.model.effective import resolve
from canary_rollout.model.explain import explain_validation_error
from canary_rollout.model.rule_sets import HaltRuleSetSpec, RuleSetReference
from canary_rollout.model.spec import CanaryRolloutSpec
from canary_rollout.traffic.port import Watched

_KINDS: Final[dict[str, Resource]] = {kind.kind: kind for kind in (HALT_RULE_SETS, CLUSTER_HALT_RULE_SETS)}
PATIENCE: Final = 25
"""Looks, a fifth of a second apart, for which a rollout waits until the sets it refers to are listed."""
_MOST_READ: Final = 1024
"""Parsed sets that are kept; above it, all are parsed again."""


def watched_sets(namespace: str, written: CanaryRolloutSpec | None) -> tuple[Watched, ...]:
    """The objects that the sets a spec refers to are read from."""
    references = written.halt_rule_sets if written is not None else ()
    return tuple(dict.fromkeys(_place(namespace, reference) for reference in references))


def _place(namespace: str, reference: RuleSetReference) -> Watched:
    resource = _KINDS[reference.kind]
    return Watched(resource, namespace if resource.namespaced else "", reference.name)


@dataclass(slots=True)
class RuleSets:
    """Reads sets from the cache; each is parsed once, however many rollouts refer to it.

    Attributes:
        cache: where they are.
    """

    cache: Cache
    _read: dict[Watched, tuple[str, HaltRuleSetSpec | str]] = field(default_factory=dict)

    def take_in(self, key: Key, memory: Memory, missing: Callable[[Iterable[Watched]], list[str]]) -> bool:
        """Bring ``memory.spec`` up to date with the sets as they are now.

        Args:
            key: the rollout.
            memory: its memory; a set that is gone leaves the rules behind that it had.
            missing: says what is not listed completely yet.

        Returns:
            whether it is; ``False`` while they are about to be listed. Kinds that stay unlisted are a problem of this rollout,
            which raises nothing then; nothing that may lower a weight waits for them.
        """
        written = memory.written
        if written is None or not written.halt_rule_sets:
            return True
        unread = frozenset(place.resource for place in watched_sets(key[0], written) if missing([place]))
        if unread and memory.waited_for_sets < PATIENCE:
            memory.waited_for_sets += 1
            return False
        found = [self._find(key[0], reference, unread) for reference in written.halt_rule_sets]
        versions = tuple(version for version, _ in found)
        if memory.sets_as_of == versions:
            return True
        answers = iter([answer for _, answer in found])
        effective = resolve(written, lambda _: next(answers), memory.taken)
        memory.spec, memory.set_problems = effective.spec, effective.problems
        memory.taken, memory.sets_as_of = effective.taken, versions
        return True

    def _find(
        self, namespace: str, reference: RuleSetReference, unread: frozenset[Resource]
    ) -> tuple[str, HaltRuleSetSpec | str]:
        """Version and content of a set, or what is wrong with it."""
        place = _place(namespace, reference)
        if place.resource in unread:
            return "unread", f"the cluster does not list {place.resource.plural} ({place.resource.api_version})"
        found = self.cache.get(place.resource, place.namespace, reference.name)
        if found is None:
            where = f" in namespace {namespace}" if place.namespace else ""
            return "", f"it does not exist{where}; create it, or take it out of haltRuleSets"
        version = f"{found['metadata'].get('uid', '')}/{found['metadata'].get('resourceVersion', '')}"
        known = self._read.get(place)
        if known is None or known[0] != version:
            if len(self._read) >= _MOST_READ:
                self._read.clear()
            known = self._read[place] = (version, _parsed(found))
        return known


def _parsed(found: Object) -> HaltRuleSetSpec | str:
    try:
        return HaltRuleSetSpec.model_validate(found.get("spec") or {})
    except ValidationError as error:
        return f"it is not valid: {explain_validation_error(error)}"
