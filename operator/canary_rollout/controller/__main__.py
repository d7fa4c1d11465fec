"""``python -m canary_rollout.controller``."""

from canary_rollout.controller.main import main

main()
