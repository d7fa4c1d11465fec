"""The operator's process without what it never uses: some 7 MB of modules that libraries import in case somebody wants them.

structlog takes ``rich`` for tracebacks on a terminal where it is installed (for the command line, here); kopf takes the typed
models of ``kubernetes``, and that package its synchronous half, OpenID, websockets and leader election with the first import of
any part of it. Only in the entry point: a module that is left out here stays so for the whole process.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec

_LEFT_OUT = ("rich", "kubernetes.client")
"""Optional for those who import them, and not there."""

_BARE = ("kubernetes", "kubernetes.aio")
"""Packages whose parts we import by name; what they import themselves is not run."""


def leave_out() -> None:
    """Call first of all, before anything of these packages is imported."""
    for name in _BARE:
        spec = _spec_of(name)
        if spec is not None and name not in sys.modules:
            sys.modules[name] = importlib.util.module_from_spec(spec)
    for name in _LEFT_OUT:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # Python's own way to say that a module is not there


def _spec_of(name: str) -> ModuleSpec | None:
    """Where a package is, without running it."""
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None


def main() -> None:
    """Run the operator."""
    leave_out()
    from canary_rollout.controller.main import main as run  # noqa: PLC0415 - not before

    run()
