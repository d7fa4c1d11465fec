"""What was stored before this version refused it: an upgrade is a restart, and a rollout under way goes on being watched.

Nobody writes such a thing anew: the API server and ``validate`` ask without these contexts, and are strict.
"""

from typing import Any, Final

STORED: Final = {"stored": "spec"}
"""Validation context for a spec that is stored: names and values that are refused only lately are let through, and headers
under which neither version may be told any more are read as "", which tells nothing."""
AS_WRITTEN: Final = {"stored": "route"}
"""Validation context for what was written to a data plane: as :data:`STORED`, with every header's name as it is there."""


def is_stored(context: Any) -> bool:
    """Whether what is validated was stored before, so that lately added checks of names and secrets are left out."""
    return isinstance(context, dict) and "stored" in context


def is_stored_spec(context: Any) -> bool:
    """Whether it is a stored spec, from which something will be written to a data plane."""
    return isinstance(context, dict) and context.get("stored") == "spec"
