"""A status that is never larger than promised: evidence that there is no room for is left out, and that is said.

What people and the engine go by (phase, verdicts, halts, history) stays as it is: it is bounded by itself, and leaving any
of it out would be a new status, and with it another write. Evidence is the operator's memory for the case of a restart.
"""

from typing import Any, Final

from canary_rollout.analysis.fitting import PARTS, encoded, fitted_evidence
from canary_rollout.model.status import CanaryRolloutStatus

LARGEST_STATUS: Final = 32 * 1024
"""Bytes of a status as JSON."""
SHORTEST_VERDICT: Final = 60
"""Characters of a verdict's message where there is room for nothing more."""
VERDICTS: Final = "verdicts"
"""The words of verdicts (not what they say)."""


def fitted(status: CanaryRolloutStatus) -> tuple[CanaryRolloutStatus, tuple[str, ...]]:
    """Return the status as it may be written, and which parts of the evidence are not in it.

    The parts are those of :data:`canary_rollout.analysis.fitting.PARTS` and :data:`VERDICTS`, each once; the comparison's own
    checkpoint was fitted before, and says itself what is not in it.
    """
    evidence: dict[str, Any] = status.evidence
    left = _left_before(evidence.get("comparison"))
    size = encoded(status.to_dict())
    if size <= LARGEST_STATUS:
        return status, left
    shorter, more = fitted_evidence(evidence, LARGEST_STATUS - (size - encoded(evidence)))
    status = status.model_copy(update={"evidence": shorter})
    if encoded(status.to_dict()) > LARGEST_STATUS:
        words = [said.model_copy(update={"message": said.message[:SHORTEST_VERDICT]}) for said in status.verdicts]
        status = status.model_copy(update={"verdicts": tuple(words)})
        more = (*more, VERDICTS)
    return status, tuple(dict.fromkeys((*left, *more)))


def _left_before(comparison: Any) -> tuple[str, ...]:
    """What a checkpoint says was left out of it; somebody may have mangled the status it comes from."""
    named = comparison.get("left") if isinstance(comparison, dict) else None
    return tuple(part for part in named if part in PARTS) if isinstance(named, list) else ()
