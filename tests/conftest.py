"""What all tests share."""

import asyncio

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("any machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
# For make test-fast: a quarter of the examples, where a test does not say itself how many it needs.
settings.register_profile("quick", settings.get_profile("any machine"), max_examples=25)

# looptime asks for the current loop before plain tests too, and Python 3.11 makes one when none was ever set: it would be
# left behind and reported (as an unclosed loop) in whatever test the garbage collector runs.
asyncio.set_event_loop(None)

# In tests/plugins: the real cluster for end-to-end tests, imported only when a test asks for it.
pytest_plugins = ["local_cluster"]
