"""Pure judgement: numbers in, verdicts with reasons out. Knows the model and nothing else."""

from canary_rollout.analysis.sequential import (
    PodCounts,
    Policy,
    PromotionGate,
    RawSample,
    State,
    TestVerdict,
    Tick,
    WindowTest,
)

__all__ = ["PodCounts", "Policy", "PromotionGate", "RawSample", "State", "TestVerdict", "Tick", "WindowTest"]
