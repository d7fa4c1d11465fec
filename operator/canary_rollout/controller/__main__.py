"""``python -m canary_rollout.controller``."""

from canary_rollout.controller.lean import main

main()
