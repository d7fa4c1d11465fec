"""The files of one nginx configuration: what the operator wrote, and what only the agent can know beside it."""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from canary_rollout.agent.driver import Desired, Mode
from canary_rollout.agent.settings import Settings, open_files
from canary_rollout.agent.split import lines, region_label
from canary_rollout.model.units import FULL
from canary_rollout.traffic.nginx import validate
from canary_rollout.traffic.nginx.document import DocumentError, WeightsDocument
from canary_rollout.traffic.nginx.hashing import salt_of

_INCLUDED: Final = frozenset({"local-main.conf", "local-http.conf", "local-listen.conf", "routing.conf"})
_FORBIDDEN: Final = re.compile(
    r"load_module|env|user|pid|daemon|master_process|error_log|working_directory|root|alias|listen|resolver|auth_\w+"
    r"|perl\w*|\w*lua\w*|js_\w+|ssl_\w+|fastcgi_pass|uwsgi_pass|scgi_pass|grpc_pass|memcached_pass|dav_\w+|autoindex"
)

KEEPALIVE_MIN_TIMEOUT: Final = 1
"""Seconds. A reload is over for kept connections only when this has passed as well."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the nginx beside us can do.

    Attributes:
        version: such as ``1.31.3``.
        njs: whether it has njs with a shared dictionary.
        js_module: module to load for that, ``""`` when it is built in.
        keepalive_min_timeout: whether reloads can spare kept connections (1.27.4 and later).
    """

    version: str
    njs: bool
    js_module: str
    keepalive_min_timeout: bool


@dataclass(frozen=True, slots=True)
class Candidate:
    """A whole configuration directory.

    Attributes:
        files: text by name; ``nginx.conf`` among them.
        generation: hash of all of it that needs a reload to take effect; nginx tells it on its control address.
        mode: how weights reach nginx.
    """

    files: dict[str, str]
    generation: str
    mode: Mode


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("canary_rollout.agent"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML; every value is validated instead
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _render(name: str, **values: object) -> str:
    return _environment().get_template(name).render(**values)


@cache
def _script() -> str:
    return package_files("canary_rollout.agent").joinpath("canary.js").read_text(encoding="utf-8")


def route_text(document: WeightsDocument, until: float) -> str:
    """The route as ``canary.js`` reads it; ``until`` in POSIX seconds."""
    cohort = validate.cohort("cohort", document.cohort)
    source = prefixes = pattern = region = ""
    if cohort is not None:
        source = f"h:{cohort.header}" if cohort.header is not None else f"c:{cohort.cookie}" if cohort.cookie else ""
        prefixes, pattern = ",".join(cohort.prefixes), cohort.pattern or ""
        region = cohort.regions.header if cohort.regions is not None else ""
    parts = (
        f"{document.weight}",
        f"{int(until * 1000)}",
        salt_of(document.namespace, document.rollout, document.revision),
        document.stable_revision,
        document.revision,
        source,
        document.identity,
        f"{document.mirror}",
        prefixes,
        pattern,
        region,
    )
    return "|".join(parts)


def members(document: WeightsDocument) -> dict[str, str]:
    """The cohort's members, and the regions with their weights, as keys of the shared dictionary."""
    cohort = document.cohort
    if cohort is None:
        return {}
    people = {f"m|{document.identity}|{value.lower()}": value for value in cohort.values}
    regions = cohort.regions.weights if cohort.regions is not None else ()
    weights = {
        f"r|{document.identity}|{region.value.lower()}": f"{region.weight}|{region_label(region.value)}"
        for region in regions
    }
    return people | weights


def state_text(document: WeightsDocument, until: float) -> str:
    """``state.json``: what nginx starts with when its shared memory is empty."""
    return json.dumps({"route": route_text(document, until), "members": members(document)})


def _routing(document: WeightsDocument, settings: Settings, mode: Mode, token: str, generation: str) -> str:
    common = {"control": settings.control, "token": token, "generation": generation}
    if mode == "njs":
        return _render("routing-njs.conf.j2", **common)
    found = lines(document)
    return _render(
        "routing-reload.conf.j2",
        salt=salt_of(document.namespace, document.rollout, document.revision),
        serving=document.weight > 0,
        full=document.weight >= FULL,
        mirror=f"{document.mirror / 100:.2f}" if document.mirror else "",
        canary_revision=validate.revision("revision", document.revision),
        stable_revision=validate.revision("stableRevision", document.stable_revision),
        cohort_variable=found.cohort_variable,
        members=found.members,
        region_variable=found.region_variable,
        regions=found.regions,
        splits=found.splits,
        **common,
    )


def check_config(text: str) -> None:
    """Refuse what has no business in ``nginx.conf``, whoever wrote it: other files, other programs, other sockets.

    No gate against somebody who may write the ConfigMap and means harm (RBAC is), but one mistake less.

    Raises:
        DocumentError: names the directive.
    """
    bare = re.sub(r"#[^\n]*", "", text)
    for statement in re.split(r"[;{}]", bare):
        words = statement.split()
        if not words:
            continue
        if words[0] == "include" and (len(words) != 2 or words[1] not in _INCLUDED):
            raise DocumentError(f"nginx.conf includes {' '.join(words[1:])[:80]!r}, which is none of the agent's files")
        if _FORBIDDEN.fullmatch(words[0]) or "unix:" in statement:
            raise DocumentError(f"nginx.conf uses {words[0]!r}, which only the agent's own files may")


def build(
    desired: Desired[WeightsDocument], settings: Settings, abilities: Abilities, mode: Mode, token: str
) -> Candidate:
    """All files of a configuration but ``state.json``, which changes without a reload."""
    document = desired.document
    files = {
        "nginx.conf": desired.config,
        "local-main.conf": _render(
            "local-main.conf.j2",
            js_module=abilities.js_module if mode == "njs" else "",
            user="root" if os.geteuid() == 0 else "",
            workers=settings.workers,
            open_files=open_files(),
        ),
        "local-http.conf": _render(
            "local-http.conf.j2",
            keepalive_min_timeout=KEEPALIVE_MIN_TIMEOUT if abilities.keepalive_min_timeout else 0,
        ),
        "local-listen.conf": _render("local-listen.conf.j2", addresses=settings.bind, port=document.listen),
        "routing.conf": _routing(document, settings, mode, token, ""),
    }
    if mode == "njs":
        files["canary.js"] = _script()
    # In reload mode the identity takes part, so that each document has a generation of its own to be confirmed.
    identity = document.identity if mode == "reload" else ""
    text = "\0".join((mode, identity, *(f"{name}\0{content}" for name, content in sorted(files.items()))))
    generation = hashlib.sha256(text.encode()).hexdigest()[:24]
    files["routing.conf"] = _routing(document, settings, mode, token, generation)
    return Candidate(files, generation, mode)
