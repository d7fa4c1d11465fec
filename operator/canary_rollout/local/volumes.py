"""Volumes as directories on this machine, replaced atomically as the kubelet does it."""

import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from .errors import VolumeNotReadyError
from .podenv import ConfigSource, field_value, object_data

Manifest = dict[str, Any]
Payload = dict[str, bytes]
"""File content by path relative to the volume's directory."""

TokenSource = Callable[[], Awaitable[str]]

DATA_LINK = "..data"
_KINDS_WITH_CONTENT = ("configMap", "secret", "projected", "downwardAPI")


def write_payload(directory: Path, payload: Mapping[str, bytes]) -> bool:
    """Make ``directory`` show exactly ``payload``; returns whether anything changed.

    As the kubelet's atomic writer: a fresh hidden directory is filled, the link ``..data`` is moved onto it by one
    rename, the visible names are links through ``..data``. Whoever reads sees all of the old or all of the new.
    """
    directory.mkdir(parents=True, exist_ok=True)
    link = directory / DATA_LINK
    if link.is_symlink() and read_payload(link.resolve()) == dict(payload):
        return False
    old = link.resolve() if link.is_symlink() else None
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=directory))
    for name, content in payload.items():
        file = fresh / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    fresh.chmod(0o755)
    unready = directory / "..data_tmp"
    unready.symlink_to(fresh.name)
    unready.replace(link)
    _link_visible_names(directory, {name.split("/", 1)[0] for name in payload})
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
    return True


def _link_visible_names(directory: Path, wanted: set[str]) -> None:
    for entry in directory.iterdir():
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()
    for name in wanted:
        visible = directory / name
        if not visible.is_symlink():
            visible.symlink_to(os.path.join(DATA_LINK, name))  # noqa: PTH118  # a relative link's text


def read_payload(directory: Path) -> Payload:
    """Return all files below a directory."""
    return {
        str(file.relative_to(directory)): file.read_bytes() for file in sorted(directory.rglob("*")) if file.is_file()
    }


class PodVolumes:
    """The volumes of one pod.

    Args:
        directory: the pod's directory on this machine.
        pod: the pod.
        pod_ip: its address as the API shows it.
        host_ip: the node's.
        source: ConfigMaps and Secrets.
        token: gives a token for the pod's ServiceAccount.
        ca: PEM for ``ca.crt`` of token volumes.
    """

    def __init__(
        self,
        directory: Path,
        pod: Manifest,
        *,
        pod_ip: str,
        host_ip: str,
        source: ConfigSource,
        token: TokenSource,
        ca: bytes,
    ) -> None:
        self._directory = directory
        self.pod = pod
        self._namespace = str(pod["metadata"]["namespace"])
        self._pod_ip = pod_ip
        self._host_ip = host_ip
        self._source = source
        self._token = token
        self._ca = ca

    @property
    def names(self) -> list[str]:
        """Names of the volumes."""
        return [str(volume["name"]) for volume in self.pod["spec"].get("volumes") or []]

    def path(self, name: str) -> Path:
        """Directory of a volume on this machine."""
        for volume in self.pod["spec"].get("volumes") or []:
            if volume["name"] == name and "hostPath" in volume:
                return Path(volume["hostPath"]["path"])
        return self._directory / name

    def refers_to(self, what: str, name: str) -> bool:
        """Whether a volume shows the ConfigMap or Secret (``what``: ``"configmap"``, ``"secret"``) of that name."""
        return any((what, name) in _references(volume) for volume in self.pod["spec"].get("volumes") or [])

    async def sync(self) -> bool:
        """Bring every volume up to date; returns whether one changed.

        Raises:
            VolumeNotReadyError: something that a volume shows does not exist (yet), or its kind is not supported.
        """
        changed = False
        for volume in self.pod["spec"].get("volumes") or []:
            if "emptyDir" in volume:
                self.path(volume["name"]).mkdir(parents=True, exist_ok=True)
            elif "hostPath" not in volume:
                changed |= write_payload(self.path(volume["name"]), await self._payload(volume))
        return changed

    async def _payload(self, volume: Manifest) -> Payload:
        kind = next((kind for kind in _KINDS_WITH_CONTENT if kind in volume), None)
        if kind is None:
            raise VolumeNotReadyError(
                f"volume {volume['name']}: {sorted(set(volume) - {'name'})} is not supported by the local node; use "
                "configMap, secret, projected, downwardAPI, emptyDir or hostPath"
            )
        if kind != "projected":
            return await self._source_payload(kind, volume[kind])
        payload: Payload = {}
        for one in volume["projected"].get("sources") or []:
            for source_kind, source in one.items():
                payload |= await self._source_payload(source_kind, source)
        return payload

    async def _source_payload(self, kind: str, source: Manifest) -> Payload:
        if kind == "serviceAccountToken":
            return {source["path"]: (await self._token()).encode()}
        if kind == "downwardAPI":
            return {
                item["path"]: field_value(self.pod, item["fieldRef"]["fieldPath"], self._pod_ip, self._host_ip).encode()
                for item in source.get("items") or []
            }
        if kind not in {"configMap", "secret"}:
            raise VolumeNotReadyError(f"projected volume source {kind!r} is not supported by the local node")
        return self._object_payload("configmap" if kind == "configMap" else "secret", source)

    def _object_payload(self, what: str, source: Manifest) -> Payload:
        name = source.get("name") or source.get("secretName") or ""
        found = object_data(self._source, what, self._namespace, name)
        if found is None:
            if source.get("optional"):
                return {}
            # The API server knows this one for every namespace; it is our certificate authority.
            if (what, name) == ("configmap", "kube-root-ca.crt"):
                found = {"ca.crt": self._ca}
            else:
                raise VolumeNotReadyError(f'{what} "{name}" not found')
        items = source.get("items")
        if not items:
            return found
        missing = [item["key"] for item in items if item["key"] not in found]
        if missing and not source.get("optional"):
            raise VolumeNotReadyError(f'{what} "{name}" has no key {", ".join(missing)}')
        return {item["path"]: found[item["key"]] for item in items if item["key"] in found}


def _references(volume: Manifest) -> set[tuple[str, str]]:
    sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
    found = set()
    for source in sources:
        if "configMap" in source:
            found.add(("configmap", str(source["configMap"].get("name", ""))))
        if "secret" in source:
            secret = source["secret"]
            found.add(("secret", str(secret.get("secretName") or secret.get("name") or "")))
    return found
