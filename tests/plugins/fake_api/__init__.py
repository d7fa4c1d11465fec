"""An API server in this process, close enough to the real one that an operator cannot tell: see README.md beside this."""

from fake_api.api import Call, FakeApi, FakeClient
from fake_api.faults import Answer, Before, Drop, Hang, Killed, Match, Pass, Slow, kill_points
from fake_api.rows import Failure
from fake_api.server import FakeServer
from fake_api.simulation import Deployments
from fake_api.store import Store

__all__ = [
    "Answer",
    "Before",
    "Call",
    "Deployments",
    "Drop",
    "Failure",
    "FakeApi",
    "FakeClient",
    "FakeServer",
    "Hang",
    "Killed",
    "Match",
    "Pass",
    "Slow",
    "Store",
    "kill_points",
]
