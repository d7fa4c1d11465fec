"""The root of every error this project raises on purpose.

Each room defines its own subclasses beside the code that raises them; a caller that wants
"anything we said ourselves" catches :class:`CanaryRolloutError`.
"""


class CanaryRolloutError(Exception):
    """An error whose message says what was wrong, with which value, and what to do next."""
