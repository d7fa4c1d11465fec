"""``python -m canary_rollout.local.app``."""

import sys

from canary_rollout.local.app.server import main

if __name__ == "__main__":
    sys.exit(main())
