"""``python -m canary_rollout.vitals``."""

from canary_rollout.vitals.main import main

main()
