"""The sequential comparison of a canary with stable: counts per tick in, verdicts out, at a bounded false-alarm rate.

Pure Python, standard library only, no clock and no I/O. See ``docs/analysis.md`` for what is tested and why.
"""

from canary_rollout.analysis.sequential.comparison import Comparison
from canary_rollout.analysis.sequential.counts import Arm, PodCounts, RawSample, Tick
from canary_rollout.analysis.sequential.policy import Policy, PolicyError, Test
from canary_rollout.analysis.sequential.tracker import CounterTracker
from canary_rollout.analysis.sequential.verdicts import PromotionGate, State, TestVerdict, WindowTest

__all__ = [
    "Arm",
    "Comparison",
    "CounterTracker",
    "PodCounts",
    "Policy",
    "PolicyError",
    "PromotionGate",
    "RawSample",
    "State",
    "Test",
    "TestVerdict",
    "Tick",
    "WindowTest",
]
