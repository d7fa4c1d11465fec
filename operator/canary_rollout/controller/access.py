"""What a rollout's queries need from its namespace: credentials out of Secrets, preset sets out of ConfigMaps.

Read by name when needed and again every minute, so that a rotated Secret is picked up; never listed, never watched, never logged.
"""

import asyncio
import base64
import binascii
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from canary_rollout.kube.port import (
    CONFIG_MAPS,
    SECRETS,
    ApiError,
    Clock,
    ForbiddenError,
    KubeApi,
    NotFoundError,
    Resource,
)
from canary_rollout.metrics.errors import PresetError
from canary_rollout.metrics.presets import Presets, prepare, read
from canary_rollout.metrics.target import CredentialsError, Target, targets_of
from canary_rollout.model.metrics import Metrics

FRESH_FOR: Final = 60.0
"""Seconds for which what was read is used."""

LARGEST_SET: Final = 64 * 1024
"""Characters of one preset file; a set of 64 measures takes a tenth of it."""

_HEARD: Final = 4096


@dataclass(frozen=True, slots=True)
class Granted:
    """What came of it.

    Attributes:
        targets: servers by name, the main one as ``""``.
        own: preset sets of the user's own.
        problem: why one of them is missing; empty if none is.
    """

    targets: dict[str, Target]
    own: tuple[Presets, ...]
    problem: str = ""


@dataclass(slots=True)
class Access:
    """Reads for all rollouts; what several name is read once.

    Attributes:
        api: the cluster.
        clock: wall time.
        common: preset sets of the operator's own, for everybody.
    """

    api: KubeApi
    clock: Clock
    common: tuple[Presets, ...] = ()
    _read: dict[tuple[Resource, str, str], tuple[float, "asyncio.Future[dict[str, str]]"]] = field(default_factory=dict)

    async def granted(self, namespace: str, metrics: Metrics) -> Granted:
        """Return what a rollout in ``namespace`` may use. Raises nothing: what is missing is said."""
        targets = await targets_of(metrics, _Secrets(self, namespace))
        own, problems = [*self.common], []
        for name in metrics.presets:
            try:
                own = [*await self._sets(namespace, name), *own]
            except PresetError as error:
                problems.append(str(error))
        return Granted(targets, tuple(own), problems[0] if problems else "")

    async def _sets(self, namespace: str, name: str) -> list[Presets]:
        try:
            data = await self.data(CONFIG_MAPS, namespace, name)
        except NotFoundError as error:
            raise PresetError(
                f"ConfigMap {name} does not exist: create it, or take it out of metrics.presets"
            ) from error
        except ApiError as error:
            raise PresetError(f"ConfigMap {name} cannot be read: {error}") from error
        return [preset_set(text, f"{name}/{key}") for key, text in sorted(data.items())]

    async def data(self, resource: Resource, namespace: str, name: str) -> dict[str, str]:
        """Return the data of a Secret or ConfigMap, at most a minute old.

        Raises:
            ApiError: it is not there, may not be read, or there was no answer.
        """
        now, key = self.clock.now(), (resource, namespace, name)
        known = self._read.get(key)
        if known is None or not known[0] - FRESH_FOR <= now < known[0]:
            while len(self._read) >= _HEARD:
                self._read.pop(next(iter(self._read)))
            task = asyncio.ensure_future(self._get(resource, namespace, name))
            known = self._read[key] = (now + FRESH_FOR, task)
        try:
            return await asyncio.shield(known[1])
        except ApiError as error:
            if not isinstance(error, NotFoundError | ForbiddenError):
                self._read.pop(key, None)  # it may be back at once
            raise

    async def _get(self, resource: Resource, namespace: str, name: str) -> dict[str, str]:
        found = await self.api.get(resource, namespace, name)
        data: dict[str, str] = found.get("data") or {}
        return data


@dataclass(frozen=True, slots=True)
class _Secrets:
    """Secrets of one namespace."""

    access: Access
    namespace: str

    async def read(self, name: str) -> dict[str, bytes]:
        """Return the data of a Secret."""
        try:
            data = await self.access.data(SECRETS, self.namespace, name)
            return {key: base64.b64decode(value, validate=True) for key, value in data.items()}
        except NotFoundError as error:
            raise CredentialsError(f"Secret {name} does not exist: create it, or mend spec.metrics") from error
        except ForbiddenError as error:
            raise CredentialsError(
                f"Secret {name} may not be read by the operator: grant it get on that one Secret (docs/presets.md)"
            ) from error
        except ApiError as error:
            raise CredentialsError(f"Secret {name} cannot be read: {error}") from error
        except binascii.Error as error:
            raise CredentialsError(f"Secret {name} does not read") from error


def preset_set(text: str, where: str) -> Presets:
    """Return a preset set ready to be asked; the same text gives the same object, so that queries are shared.

    Raises:
        PresetError: it is none.
    """
    if len(text) > LARGEST_SET:
        raise PresetError(f"presets {where}: {len(text)} characters are more than {LARGEST_SET}")
    found = _looked_at(text, where)
    if isinstance(found, str):
        raise PresetError(found)
    return found


@lru_cache(512)
def _looked_at(text: str, where: str) -> Presets | str:
    """Return the set, or what is wrong with it: a wrong one too is looked at once, and not at every evaluation."""
    try:
        return prepare(read(text, where))
    except PresetError as error:
        return str(error)


def of_directory(directory: str) -> tuple[Presets, ...]:
    """Return the sets of the operator's own directory; of none where it has none.

    Raises:
        PresetError: one of them is none, or the directory cannot be read.
    """
    if not directory:
        return ()
    try:
        files = sorted(Path(directory).glob("*.yaml"))
        return tuple(preset_set(file.read_text(encoding="utf-8"), file.name) for file in files)
    except (OSError, UnicodeDecodeError) as error:
        raise PresetError(f"--presets-dir {directory} cannot be read: {error}") from error
