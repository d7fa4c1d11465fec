"""Finds the router a spec names, by entry point: a new router is one file and one line in pyproject.toml."""

from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import Final

from canary_rollout.traffic.port import Router, RouterContext, RouterError

GROUP: Final = "canary_rollout.routers"

RouterFactory = Callable[[RouterContext], Router]


@cache
def _factory(name: str) -> RouterFactory:
    found = entry_points(group=GROUP, name=name)
    if not found:
        known = ", ".join(sorted(entry_points(group=GROUP).names)) or "none"
        raise RouterError(f"there is no router {name!r}: installed are {known}")
    factory: RouterFactory = next(iter(found)).load()
    return factory


def router_for(context: RouterContext) -> Router:
    """The router that ``context.spec.traffic`` names; only that one's module is imported.

    Raises:
        RouterError: no installed package provides it.
    """
    return _factory(context.spec.traffic.router)(context)
