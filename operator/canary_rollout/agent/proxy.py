"""Brings one nginx to what the ConfigMap says and proves it by reading back.

With njs a weight is a string in shared memory: pushed and read back within milliseconds, no reload. Everything else
(other upstreams, other headers; weights too where njs is missing) is a new configuration: tested, put in place by a
rename, loaded by SIGHUP, and believed only when fresh connections answer with its generation.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from canary_rollout.agent.control import Control, ReadBack
from canary_rollout.agent.driver import Desired, Mode, Served
from canary_rollout.agent.errors import ControlError, LapsedError, LoadError, NotRunningError
from canary_rollout.agent.files import (
    KEEPALIVE_MIN_TIMEOUT,
    Abilities,
    Candidate,
    build,
    check_config,
    members,
    route_text,
    state_text,
)
from canary_rollout.agent.instruments import Instruments
from canary_rollout.agent.nginx import Nginx
from canary_rollout.agent.settings import Settings
from canary_rollout.agent.workspace import Workspace
from canary_rollout.traffic.nginx.document import (
    CONFIG_KEY,
    WEIGHTS_KEY,
    ChecksumError,
    DocumentError,
    WeightsDocument,
    digest,
    parse,
    parse_edited,
)
from canary_rollout.traffic.port import RouterError

FRESH_ANSWERS: Final = 5
"""Consecutive answers on fresh connections that must name the new generation."""
TAKE_OVER: Final = 10.0
"""Seconds nginx has to take over a configuration it has accepted."""
BETWEEN_RELOADS: Final = 1.0
"""Seconds between two reloads unless the weight goes down."""
_POLL: Final = 0.02

_log: structlog.stdlib.BoundLogger = structlog.get_logger("proxy")


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside one nginx, made once per process."""

    settings: Settings
    abilities: Abilities
    nginx: Nginx
    control: Control
    workspace: Workspace
    instruments: Instruments


class Proxy:
    """One nginx. Not re-entrant: one :meth:`apply`, :meth:`renew` or :meth:`check` at a time (see ``lock``)."""

    def __init__(self, beside: Beside) -> None:
        self._settings = beside.settings
        self.abilities = beside.abilities
        self._nginx = beside.nginx
        self._control = beside.control
        self._workspace = workspace = beside.workspace
        self._instruments = beside.instruments
        self._token = workspace.token()
        self._renewed = workspace.renewed()
        self._reloaded = -BETWEEN_RELOADS
        self._placed = ""
        self._fallback: str | None = None
        self._running: dict[str, str] = {}
        self.served: Served[WeightsDocument] = Served()
        self.lock = asyncio.Lock()

    @property
    def version(self) -> str:
        """Nginx's own."""
        return self.abilities.version

    def read(self, data: Mapping[str, str], last: Desired[WeightsDocument] | None) -> Desired[WeightsDocument]:
        """Check every field again.

        Raises:
            DocumentError: with what is wrong.
        """
        text, config = data.get(WEIGHTS_KEY), data.get(CONFIG_KEY)
        if text is None or config is None:
            raise DocumentError(f"the ConfigMap has no {WEIGHTS_KEY} or no {CONFIG_KEY} yet")
        try:
            document = parse(text)
        except ChecksumError:
            return self._edited(text, last)
        if digest(config) != document.config:
            return self._edited(text, last)
        if document.namespace != self._settings.namespace:
            raise DocumentError(f"{WEIGHTS_KEY} is for namespace {document.namespace}, not {self._settings.namespace}")
        check_config(config)
        return Desired(document, config)

    @staticmethod
    def _edited(text: str, last: Desired[WeightsDocument] | None) -> Desired[WeightsDocument]:
        """Somebody's own edit counts in one case: it takes all traffic off the canary. Nobody is harmed by that."""
        document = parse_edited(text)
        if document.weight == document.mirror == 0 and last is not None:
            return Desired(document, last.config)
        raise ChecksumError("the ConfigMap was changed by somebody other than the operator: its checksums do not hold")

    def adopt(self, desired: Desired[WeightsDocument]) -> None:
        """Take what an earlier run left as the last good state, without having proved it."""
        self.served = Served(desired, self.mode_for(desired))

    def _until(self, document: WeightsDocument) -> float:
        """POSIX seconds until which a weight below 100 % may be served."""
        return self._renewed + document.stale_after

    def mode_for(self, desired: Desired[WeightsDocument]) -> Mode:
        """How weights will reach nginx.

        Raises:
            LoadError: njs is asked for and missing.
        """
        wanted = desired.document.mode
        if wanted == "reload" or (wanted == "auto" and not self.abilities.njs):
            return "reload"
        if not self.abilities.njs:
            raise LoadError(
                f"traffic.nginx.mode is njs, but this nginx {self.abilities.version} has no njs >= 0.8 "
                "(js_shared_dict_zone): use mode auto or reload, or another image"
            )
        return "njs"

    async def apply(self, desired: Desired[WeightsDocument]) -> Served[WeightsDocument]:
        """Bring nginx to ``desired`` and prove it. May be cancelled at any point and called again.

        A lowering does not depend on the new configuration: when that is refused, the weight goes down in the last
        good one, and the refusal is told beside it.

        Raises:
            LoadError: refused; ``served`` is unchanged and goes on.
            LapsedError: nginx serves stable until the lease is renewed.
            NotRunningError: nginx has not started yet, or has ended.
            ControlError: nginx does not answer.
            OSError: the disk is full, for one.
        """
        before = self.served
        lowering = before.desired is not None and desired.document.less_than(before.desired.document)
        if lowering and before.desired is not None:
            self._workspace.save_lowered(_kept(replace(desired, config=before.desired.config)))
        try:
            mode = self.mode_for(desired)
            if self._lapsed(desired, mode):
                await self._control.read()
                raise LapsedError("the API server has not accepted a renewal for too long: stable serves everything")
            if lowering and mode == before.mode == "njs":
                # From here on nothing may push the old route again, a renewal neither, whatever comes in between.
                self.served = replace(before, proved=False)
                await self._push(desired)
            return await self._bring(desired, mode, "", hurry=lowering)
        except LoadError as error:
            if not lowering or before.desired is None or before.mode is None:
                raise
            _log.error("lowered in the last good configuration", error=f"{error}")
            kept = replace(desired, config=before.desired.config)
            return await self._bring(kept, before.mode, f"{error}", hurry=True)

    async def _bring(
        self, desired: Desired[WeightsDocument], mode: Mode, error: str, *, hurry: bool
    ) -> Served[WeightsDocument]:
        try:
            candidate = build(desired, self._settings, self.abilities, mode, self._token)
        except RouterError as refused:
            raise LoadError(f"{refused}") from refused
        if not await self._runs(candidate):
            await self._load(candidate, desired, hurry=hurry)
        if mode == "njs":
            await self._push(desired)
        self.served = Served(desired, mode, time.time(), candidate.generation, error, proved=True)
        self._running = _without_routing(candidate.files)
        self._remember(desired, candidate)
        return self.served

    async def _runs(self, candidate: Candidate) -> bool:
        """Whether nginx runs this configuration already; not asked when it was told to load another one since."""
        return self._placed in {"", candidate.generation} and candidate.generation == await self._loaded()

    async def _loaded(self) -> str:
        """Generation nginx runs; ``""`` when it does not run or cannot say."""
        try:
            return (await self._control.read()).generation
        except (NotRunningError, ControlError):
            return ""

    async def _load(self, candidate: Candidate, desired: Desired[WeightsDocument], *, hurry: bool) -> None:
        """Test, put in place, reload, and wait until it answers; back to the previous one when it does not."""
        if self._placed == candidate.generation and self._nginx.master() is None:
            raise NotRunningError("nginx has its configuration and is about to start")
        target = self._workspace.stage(candidate.files, state_text(desired.document, self._until(desired.document)))
        try:
            if not self._only_numbers(candidate, desired):
                await self._nginx.test(target)
            if not hurry:
                await asyncio.sleep(max(0.0, self._reloaded + BETWEEN_RELOADS - time.monotonic()))
        except BaseException:  # raised again
            # Refused, or cancelled (a lowering takes its place): nothing points there, so nobody else would remove it.
            self._workspace.discard(target)
            raise
        previous = self._workspace.target()
        self._workspace.point(target)
        self._placed = candidate.generation
        if self._nginx.master() is None:
            raise NotRunningError("nginx has its configuration and is about to start")
        self._nginx.reload()
        self._reloaded = time.monotonic()
        self._instruments.reloads.inc()
        try:
            async with asyncio.timeout(TAKE_OVER):
                await self._answers(candidate.generation)
        except TimeoutError as error:
            # nginx logs why (an address in use, for one) and keeps what it had: so do we.
            self._placed = ""
            if previous is not None:
                self._workspace.point(previous)
                self._workspace.discard(target)
            raise LoadError(
                f"nginx did not take the configuration over within {TAKE_OVER:.0f} s; its log says why"
            ) from error
        if candidate.mode == "reload" and self.abilities.keepalive_min_timeout:
            # Kept connections answer one more request by the old weight for as long as this.
            await asyncio.sleep(KEEPALIVE_MIN_TIMEOUT)

    def _only_numbers(self, candidate: Candidate, desired: Desired[WeightsDocument]) -> bool:
        """Whether nothing but weight and revisions differs from what runs: nginx's own look at it at the reload will do."""
        served = self.served.desired
        if served is None or not self.served.proved or desired.document.cohort not in {None, served.document.cohort}:
            return False
        return _without_routing(candidate.files) == self._running

    async def _answers(self, generation: str) -> None:
        """Wait until several fresh connections in a row are answered by ``generation``."""
        row = 0
        while row < FRESH_ANSWERS:
            row = row + 1 if await self._loaded() == generation else 0
            if row == 0:
                await asyncio.sleep(_POLL)

    async def _push(self, desired: Desired[WeightsDocument]) -> None:
        """Put the route into shared memory and read it back."""
        document = desired.document
        until = self._until(document)
        route, wanted = route_text(document, until), members(document)
        answer = await self._control.push(route, wanted)
        if not self._serves(answer, route, len(wanted)):
            raise ControlError(f"nginx reads back {answer.route!r} instead of what was pushed")
        self._workspace.write_state(state_text(document, until))

    @staticmethod
    def _serves(answer: ReadBack, route: str, count: int) -> bool:
        return answer.route == route and answer.members == count

    async def renew(self, at: float) -> None:
        """The API server accepted a renewal that was sent ``at`` (POSIX seconds): the lease inside nginx goes on from there.

        Raises:
            NotRunningError, ControlError: nginx could not be told; its lease runs out as it was.
        """
        self._renewed = at
        if self.served.desired is None:
            return
        if self.served.mode == "njs" and self.served.proved:
            await self._push(self.served.desired)
        self._arm(self.served.desired)

    def _lapsed(self, desired: Desired[WeightsDocument], mode: Mode | None) -> bool:
        """Whether the fallback is in force: only where nginx cannot tell by itself."""
        document = desired.document
        return mode == "reload" and document.leased and time.time() > self._until(document)

    def _arm(self, desired: Desired[WeightsDocument]) -> None:
        """Tell the parent of nginx when to fall back by itself (see ``supervisor``); njs needs no telling."""
        lasts = self.served.mode == "njs" or not desired.document.leased
        self._workspace.write_deadman(self._renewed, self._until(desired.document), None if lasts else self._fallback)

    async def check(self) -> bool:
        """Whether nginx still serves what it was brought to; False after a restart of nginx, for example."""
        served = self.served
        if served.desired is None:
            return True
        if not await self._still_serves(served, served.desired):
            self.served = replace(served, proved=False)
        return self.served.proved

    async def _still_serves(self, served: Served[WeightsDocument], desired: Desired[WeightsDocument]) -> bool:
        try:
            answer = await self._control.read()
        except (NotRunningError, ControlError):
            return False
        if not served.proved or answer.generation != served.generation:
            return False
        document = desired.document
        return served.mode == "reload" or self._serves(
            answer, route_text(document, self._until(document)), len(members(document))
        )

    def _remember(self, desired: Desired[WeightsDocument], candidate: Candidate) -> None:
        """Keep this state for a cold start, and the weight-0 form of it for the day when nobody is left to write one."""
        self._workspace.save_last_good(_kept(desired))
        self._fallback = None
        if candidate.mode == "reload" and desired.document.leased:
            nobody = desired.document.nobody()
            zero = build(replace(desired, document=nobody), self._settings, self.abilities, "reload", self._token)
            self._fallback = self._workspace.stage(zero.files, state_text(nobody, 0.0))
        self._workspace.prune()
        self._arm(desired)


def _kept(desired: Desired[WeightsDocument]) -> dict[str, str]:
    """A ConfigMap's data that say this, also where a lowering stands beside an older configuration than its own."""
    document = desired.document.model_copy(update={"config": digest(desired.config)})
    return {CONFIG_KEY: desired.config, WEIGHTS_KEY: document.dump()}


def _without_routing(files: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in files.items() if name != "routing.conf"}
