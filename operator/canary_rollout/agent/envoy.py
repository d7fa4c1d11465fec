"""Brings one Envoy to what the ConfigMap says and proves it by reading back.

Three files (listeners, clusters, routes), each put in place by a rename into a directory that Envoy watches. A weight
changes the routes alone. Believed only when Envoy's admin page names the document's identity as the version of its
routes. A file that Envoy rejects is replaced by the last good one, so that a restart finds nothing else.
"""

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from canary_rollout.agent.driver import Desired, Served, Station
from canary_rollout.agent.errors import ControlError, LapsedError, LoadError, NotRunningError
from canary_rollout.agent.loopback import Loopback
from canary_rollout.agent.settings import Settings
from canary_rollout.agent.workspace import Workspace, write_atomic
from canary_rollout.traffic.envoy.document import ENVOY_KEY, EnvoyDocument
from canary_rollout.traffic.envoy.resources import (
    STAT_PREFIX,
    Place,
    arms,
    bootstrap,
    checked_name,
    clusters,
    digest,
    discovery,
    listeners,
)
from canary_rollout.traffic.envoy.routes import ROUTES, Routes
from canary_rollout.traffic.nginx.document import ChecksumError, DocumentError, parse_as, parse_edited_as
from canary_rollout.traffic.port import RouterError

ADMIN_TIMEOUT: Final = 2.0
TAKE_OVER: Final = 10.0
"""Seconds Envoy has to take a file over."""
LEASE_SEEN: Final = 3.0
"""Seconds Envoy has to find the lease held; it looks twice a second."""
_POLL: Final = 0.002
KINDS: Final = ("cds", "rds", "lds")
_VERSIONS: Final = {
    "cluster_manager.cds.version_text": "cds",
    "listener_manager.lds.version_text": "lds",
    f"http.{STAT_PREFIX}.rds.{ROUTES}.version_text": "rds",
}
_REJECTED: Final = (
    "cluster_manager.cds.update_rejected",
    "listener_manager.lds.update_rejected",
    f"http.{STAT_PREFIX}.rds.{ROUTES}.update_rejected",
)
_WARMING: Final = ("cluster_manager.warming_clusters", "listener_manager.total_listeners_warming")
_HEALTHY: Final = ".membership_healthy"
_FILTER: Final = "|".join(
    (*map(re.escape, (*_VERSIONS, *_REJECTED, *_WARMING)), r"cluster\.checked_.*\.membership_healthy")
)


def place_of(settings: Settings) -> Place:
    """Where the Envoy beside this agent stands."""
    host, _, admin = settings.control.rpartition(":")
    return Place(settings.work, settings.bind, host, int(admin), settings.port)


def _file(root: Path, kind: str) -> Path:
    return root / "xds" / kind / f"{kind}.json"


def write_bootstrap(settings: Settings, workspace: Workspace) -> None:
    """Write what Envoy is started with, and empty files where there are none yet: Envoy refuses to start without."""
    workspace.prepare()
    for kind in KINDS:
        path = _file(settings.work, kind)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            write_atomic(path, discovery("", []))
    write_atomic(settings.work / "bootstrap.json", json.dumps(bootstrap(place_of(settings), settings.pod)))


@dataclass(frozen=True, slots=True)
class State:
    """What Envoy says of itself.

    Attributes:
        versions: of its clusters (``cds``), listeners (``lds``) and routes (``rds``).
        rejected: files it has refused since it started.
        warming: clusters and listeners that are not in use yet.
        leased: names of the series of those checked canaries whose lease Envoy has found held.
    """

    versions: dict[str, str]
    rejected: int
    warming: int
    leased: frozenset[str]


class Admin(Loopback):
    """Envoy's admin page on loopback."""

    def __init__(self, address: str) -> None:
        super().__init__(
            "Envoy's admin page", aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ADMIN_TIMEOUT))
        )
        self._url = f"http://{address}"

    async def get(self, path: str, **query: str) -> str:
        """Text of one page; empty where Envoy has nothing of that kind yet (404).

        Raises:
            NotRunningError: nothing listens.
            ControlError: no answer in time, or not a good one.
        """
        with self._understood():
            async with self._session.get(self._url + path, params=query) as response:
                if response.status not in {200, 404}:
                    raise ControlError(f"Envoy's admin page answered {response.status} to {path}")
                return await response.text() if response.status == 200 else ""

    async def state(self) -> State:
        """What is in use now."""
        text = await self.get("/stats", filter=f"^({_FILTER})$")
        found = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        try:
            return State(
                {kind: found.get(name, "").strip('"') for name, kind in _VERSIONS.items()},
                sum(int(found.get(name, "0")) for name in _REJECTED),
                sum(int(found.get(name, "0")) for name in _WARMING),
                frozenset(
                    name.removeprefix("cluster.").removesuffix(_HEALTHY)
                    for name, value in found.items()
                    if name.endswith(_HEALTHY) and int(value) > 0
                ),
            )
        except ValueError as error:
            raise ControlError(f"Envoy's admin page makes no sense: {error}") from error

    async def routes_version(self) -> str:
        """Version of the routes in use, from the configuration itself; empty when there are none."""
        text = await self.get("/config_dump", resource="dynamic_route_configs", mask="version_info,route_config.name")
        try:
            configs = json.loads(text or "{}").get("configs", [])
            return next((f"{one['version_info']}" for one in configs if one["route_config"]["name"] == ROUTES), "")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ControlError(f"Envoy's configuration makes no sense: {error!r}") from error

    async def version(self) -> str:
        """Such as ``1.40.0``; empty when it cannot be read."""
        found = re.search(r'"version":\s*"[0-9a-f]+/([0-9.]+)', await self.get("/server_info"))
        return found.group(1) if found else ""


class EnvoyDriver:
    """One Envoy (:class:`agent.driver.Driver`)."""

    def __init__(self, station: Station, admin: Admin) -> None:
        self._settings = station.settings
        self._workspace = station.workspace
        self._admin = admin
        self._place = place_of(station.settings)
        self._renewed = station.workspace.renewed()
        self._good: dict[str, str] = {}
        self._stale_after = 0.0
        self.version = ""
        self.served: Served[EnvoyDocument] = Served()
        self.lock = asyncio.Lock()

    def held(self) -> bool:
        """Whether a weight below 100 % may be served: what Envoy asks for, and ends it by itself."""
        return time.time() < self._renewed + self._stale_after

    def read(self, data: Mapping[str, str], last: Desired[EnvoyDocument] | None) -> Desired[EnvoyDocument]:
        """Check every field again.

        Raises:
            DocumentError: with what is wrong.
        """
        text = data.get(ENVOY_KEY)
        if text is None:
            raise DocumentError(f"the ConfigMap has no {ENVOY_KEY} yet")
        try:
            document = parse_as(EnvoyDocument, text, ENVOY_KEY)
        except ChecksumError:
            edited = parse_edited_as(EnvoyDocument, text, ENVOY_KEY)
            if edited.weight == edited.mirror == 0 and last is not None:
                return Desired(last.document.model_copy(update={"sequence": edited.sequence}).nobody())
            raise
        if document.namespace != self._settings.namespace:
            raise DocumentError(f"{ENVOY_KEY} is for namespace {document.namespace}, not {self._settings.namespace}")
        return Desired(document)

    def adopt(self, desired: Desired[EnvoyDocument]) -> None:
        """Take what an earlier run left as the last good state, without having proved it."""
        self.served = Served(desired, "envoy")
        self._stale_after = desired.document.stale_after

    async def apply(self, desired: Desired[EnvoyDocument]) -> Served[EnvoyDocument]:
        """Bring Envoy to ``desired`` and prove it.

        Raises:
            LoadError: rejected; ``served`` is unchanged and goes on.
            LapsedError: Envoy serves stable until the lease is renewed.
            NotRunningError, ControlError: Envoy is not there, or does not answer.
            OSError: the disk is full, for one.
        """
        document, before = desired.document, self.served.desired
        files = self._files(document)
        lowering = before is not None and document.less_than(before.document)
        if lowering:
            self._workspace.save_lowered({ENVOY_KEY: document.dump()})
        if lowering and document.weight == 0:
            # Nothing but stable is named in these routes, so they wait for no new cluster.
            await self._take(files, ("rds", "cds", "lds"))
        else:
            await self._take(files, KINDS)
        self._stale_after = document.stale_after
        await self._wait_for_lease(document)
        if not self.version:
            self.version = await self._admin.version()
        self.served = Served(desired, "envoy", time.time(), document.identity, proved=True)
        self._workspace.save_last_good({ENVOY_KEY: document.dump()})
        self._workspace.write_deadman(self._renewed, self._renewed + self._stale_after, None)
        return self.served

    def _files(self, document: EnvoyDocument) -> dict[str, tuple[str, str]]:
        """(version, text) by kind.

        Raises:
            LoadError: a value that must not reach Envoy.
        """
        try:
            made = {"cds": clusters(document, self._place), "lds": listeners(document, self._place)}
            routes = [Routes(document).configuration()]
        except RouterError as error:
            raise LoadError(f"{error}") from error
        found = {kind: (digest(resources), discovery(digest(resources), resources)) for kind, resources in made.items()}
        return {**found, "rds": (document.identity, discovery(document.identity, routes))}

    async def _take(self, files: Mapping[str, tuple[str, str]], order: tuple[str, ...]) -> None:
        """Put the files in place, in this order, and wait for each until Envoy has it."""
        state, proved = await self._admin.state(), False
        for kind in order:
            version, text = files[kind]
            if (
                kind != "rds"
                and self._good.get(kind) == text == self._present(kind)
                and state.versions[kind] == version
            ):
                continue  # a weight changes the routes alone
            if self._present(kind) != text:
                write_atomic(_file(self._settings.work, kind), text)
            # Routes are asked for by the listener: the first one brings them.
            if kind != "rds" or state.versions["lds"]:
                await self._wait(kind, version, state.rejected)
                proved = proved or kind == "rds"
                state = await self._admin.state() if kind != "rds" else state
        if not proved:
            await self._wait("rds", files["rds"][0], state.rejected)
        self._good = {kind: text for kind, (_, text) in files.items()}

    def _present(self, kind: str) -> str:
        path = _file(self._settings.work, kind)
        return path.read_text(encoding="utf-8") if path.exists() else ""

    async def _wait(self, kind: str, version: str, rejected: int) -> None:
        try:
            async with asyncio.timeout(TAKE_OVER):
                while not await self._has(kind, version):
                    if (await self._admin.state()).rejected > rejected:
                        raise LoadError(f"Envoy rejected its {kind}; its log says why")  # noqa: TRY301
                    await asyncio.sleep(_POLL)
        except (TimeoutError, LoadError) as error:
            if kind in self._good:
                write_atomic(_file(self._settings.work, kind), self._good[kind])
            said = f"{error}" or f"Envoy did not take its {kind} over within {TAKE_OVER:.0f} s; its log says why"
            raise LoadError(said) from error

    async def _has(self, kind: str, version: str) -> bool:
        if kind == "rds":
            return await self._admin.routes_version() == version
        state = await self._admin.state()
        return state.versions[kind] == version and state.warming == 0

    async def _wait_for_lease(self, document: EnvoyDocument) -> None:
        """Wait until Envoy itself has found the lease held: before that, stable serves what the routes give the canary."""
        try:
            async with asyncio.timeout(LEASE_SEEN):
                while document.leased and not await self._leased(document):  # noqa: ASYNC110 - another process decides
                    await asyncio.sleep(_POLL)
        except TimeoutError as error:
            raise LapsedError(
                "the lease is over: stable serves everything until the API server accepts a renewal"
            ) from error

    async def _leased(self, document: EnvoyDocument) -> bool:
        wanted = {checked_name(arm, document.revision) for arm in arms(document)}
        return wanted <= (await self._admin.state()).leased

    async def renew(self, at: float) -> None:
        """The API server accepted a renewal that was sent ``at`` (POSIX seconds): :meth:`held` goes on from there."""
        self._renewed = at
        self._workspace.write_deadman(at, at + self._stale_after, None)

    async def check(self) -> bool:
        """Whether Envoy still serves what it was brought to; False after a restart, for example."""
        served = self.served
        if served.desired is None:
            return True
        try:
            document = served.desired.document
            same = served.proved and await self._admin.routes_version() == document.identity
            same = same and (not document.leased or await self._leased(document))
        except (NotRunningError, ControlError):
            same = False
        if not same:
            self.served = Served(served.desired, served.mode, served.at, served.generation, served.error)
        return same
