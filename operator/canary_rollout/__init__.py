"""CanaryRollout: a Kubernetes operator that rolls a new version out step by step and back by itself."""

__version__ = "0.1.0"
