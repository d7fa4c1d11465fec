"""``python -m canary_rollout.agent``."""

from canary_rollout.agent.main import main

main()
