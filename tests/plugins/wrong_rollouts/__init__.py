"""CanaryRollouts that are wrong in one way each.

They are refused twice, with the same sentence: by pydantic (tests/model) and by a real API server (tests/install).
"""

from wrong_rollouts.access import BAD_ACCESS
from wrong_rollouts.bad import Bad
from wrong_rollouts.rules import BAD_RULES
from wrong_rollouts.stages import BAD_STAGES
from wrong_rollouts.traffic import BAD_WORKLOADS_AND_TRAFFIC

BAD: tuple[Bad, ...] = (*BAD_STAGES, *BAD_WORKLOADS_AND_TRAFFIC, *BAD_ACCESS, *BAD_RULES)

__all__ = ["BAD", "Bad"]
