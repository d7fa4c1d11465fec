"""Load for the demo, the end-to-end tests and the benchmarks: open loop, keep-alive, many tenants, honest counting.

Nothing is retried and nothing is forgiven. Four kinds of outcome are kept apart:

* an answer of the app (it carries ``X-App-Version``), good or 5xx (``app_errors``);
* an answer that **no application produced** (a proxy's own 502, 503, 504, 404 …: ``no_app``);
* a **transport error**: refused, reset, closed after the request was written and before its answer was complete,
  or no answer within the timeout. A kept connection that the server closes while nothing is under way is none;
* a request that was never written because every connection was busy for too long (``not_sent``).
"""

from canary_rollout.local.load.config import LoadConfig, LoadConfigError
from canary_rollout.local.load.generator import LoadGenerator
from canary_rollout.local.load.tally import Outcome, Snapshot, VersionCount

__all__ = ["LoadConfig", "LoadConfigError", "LoadGenerator", "Outcome", "Snapshot", "VersionCount"]
