"""The spec that counts: the user's, with the halt rules of the sets it refers to taken in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from canary_rollout.model.halt_rules import HaltRule, default_halt_rules, merged
from canary_rollout.model.rule_sets import HaltRuleSetSpec, RuleSetError, RuleSetReference
from canary_rollout.model.spec import CanaryRolloutSpec

MOST_RULES: Final = 64
"""Halt rules of one rollout: standard, of sets, and its own. What they remember must fit the status."""

Find = Callable[[RuleSetReference], HaltRuleSetSpec | str]
"""Looks a set up; answers with a sentence where it is not there or not valid."""


@dataclass(frozen=True, slots=True)
class Effective:
    """What a rollout goes by.

    Attributes:
        spec: the spec with whole halt rules only; it refers to no sets any more.
        problems: why a set could not be taken in, one sentence each. Nothing may be raised while there are any.
        taken: the rules of each set that was taken in; given back to :func:`resolve`, they stand in when it is gone.
    """

    spec: CanaryRolloutSpec
    problems: tuple[str, ...]
    taken: dict[str, tuple[HaltRule, ...]]


def resolve(spec: CanaryRolloutSpec, find: Find, before: dict[str, tuple[HaltRule, ...]] | None = None) -> Effective:
    """Take in the sets that ``spec`` refers to.

    Later layers change earlier ones by the rules' names: standard rules, the sets in their order, the rollout's own. (Rules of a
    stage come on top of these while it lasts.)

    Args:
        spec: as the user wrote it.
        find: looks up a set.
        before: ``taken`` of the last time: a set that is gone or broken is still watched by the rules it had.
    """
    problems: list[str] = []
    taken: dict[str, tuple[HaltRule, ...]] = {}
    for reference in spec.halt_rule_sets:
        name = f"{reference.kind}/{reference.name}"
        try:
            taken[name] = _instantiated(find(reference), reference)
        except RuleSetError as error:
            old = (before or {}).get(name)
            rest = "the rules it had still count" if old else "its rules are not watched"
            problems.append(f"{reference.kind} {reference.name}: {error}; nothing is raised, {rest}")
            taken[name] = old or ()
    standard = default_halt_rules() if spec.default_halt_rules else ()
    rules = merged(standard, *taken.values(), spec.halt_rules)
    if len(rules) > MOST_RULES:
        problems.append(
            f"{len(rules)} halt rules are more than the {MOST_RULES} a rollout may have, the last ones are not watched: refer to "
            "fewer sets, or set defaultHaltRules: false"
        )
        rules = rules[:MOST_RULES]
    changed = {"halt_rules": rules, "halt_rule_sets": (), "default_halt_rules": False}
    return Effective(spec.model_copy(update=changed), tuple(problems), taken)


def _instantiated(found: HaltRuleSetSpec | str, reference: RuleSetReference) -> tuple[HaltRule, ...]:
    if isinstance(found, str):
        raise RuleSetError(found)
    return found.instantiate(reference.variables)
