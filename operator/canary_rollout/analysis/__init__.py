"""Pure judgement: numbers in, verdicts with reasons out. Knows the model and nothing else."""

from canary_rollout.analysis.sequential import (
    Comparison,
    CounterTracker,
    PodCounts,
    Policy,
    PromotionGate,
    RawSample,
    State,
    TestVerdict,
    Tick,
    WindowTest,
)

__all__ = [
    "Comparison",
    "CounterTracker",
    "PodCounts",
    "Policy",
    "PromotionGate",
    "RawSample",
    "State",
    "TestVerdict",
    "Tick",
    "WindowTest",
]
