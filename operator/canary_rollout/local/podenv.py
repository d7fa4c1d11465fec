"""Environment and arguments of a container: references resolved, ``$(VAR)`` expanded, mount paths redirected."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .errors import ContainerConfigError

Manifest = dict[str, Any]

_VARIABLE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_QUANTITY = re.compile(r"([0-9.]+)([a-zA-Z]*)")
_FACTORS = {
    "": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip


class ConfigSource(Protocol):
    """Where ConfigMaps and Secrets are read from; None when there is none."""

    def configmap(self, namespace: str, name: str) -> Manifest | None:
        """Return a ConfigMap."""

    def secret(self, namespace: str, name: str) -> Manifest | None:
        """Return a Secret."""


def parse_quantity(text: str) -> float:
    """Return a Kubernetes quantity as a number: ``"64Mi"`` is 67108864, ``"250m"`` is 0.25.

    Raises:
        ContainerConfigError: it is none.
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None or match.group(2) not in _FACTORS:
        raise ContainerConfigError(f"{text!r} is no quantity: write a number with Ki, Mi, Gi, m, k, M or G")
    return float(match.group(1)) * _FACTORS[match.group(2)]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Expand ``$(NAME)`` as Kubernetes does: unknown names stay, ``$$`` is a dollar sign."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else variables.get(name, match.group(0))

    return _VARIABLE.sub(value, text)


class PathRewriter:
    """Redirects mount paths to the host directories behind them; there is no chroot that would do it.

    Args:
        mounts: mountPath in the container -> path on this machine.
    """

    def __init__(self, mounts: Mapping[str, str]) -> None:
        self._mounts = {path.rstrip("/"): target for path, target in mounts.items() if path.rstrip("/")}
        longest_first = sorted(self._mounts, key=len, reverse=True)
        # A path begins after something that cannot be part of one, and ends at a "/" or where its name ends.
        self._pattern = (
            re.compile(rf"(?<![\w./-])({'|'.join(map(re.escape, longest_first))})(?![\w.-])") if longest_first else None
        )

    def __call__(self, text: str) -> str:
        """Return the text with every mount path in it replaced."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._mounts[match.group(1)], text)


def field_value(pod: Manifest, path: str, pod_ip: str, host_ip: str) -> str:
    """Return what a ``fieldRef`` names.

    Raises:
        ContainerConfigError: a field that the downward API does not offer.
    """
    metadata, spec = pod["metadata"], pod["spec"]
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript is not None:
        return str((metadata.get(subscript.group(1)) or {}).get(subscript.group(2), ""))
    simple = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", "local"),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": pod_ip,
        "status.podIPs": pod_ip,
        "status.hostIP": host_ip,
        "status.hostIPs": host_ip,
    }
    if path in simple:
        return str(simple[path])
    if path in {"metadata.labels", "metadata.annotations"}:
        entries = metadata.get(path.removeprefix("metadata.")) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(entries.items()))
    raise ContainerConfigError(f"fieldRef {path!r} is not supported: use one of {', '.join(simple)}")


def resource_value(container: Manifest, reference: Manifest) -> str:
    """Return what a ``resourceFieldRef`` names, rounded up to whole divisors."""
    kind, _, name = str(reference["resource"]).partition(".")
    given = ((container.get("resources") or {}).get(kind) or {}).get(name)
    if given is None:
        raise ContainerConfigError(f"resourceFieldRef {reference['resource']!r}: the container does not set it")
    divisor = parse_quantity(reference.get("divisor") or "1") or 1.0
    return str(math.ceil(parse_quantity(given) / divisor))


class EnvironmentBuilder:
    """Builds one container's variables from its ``envFrom`` and ``env``.

    Args:
        pod: the pod.
        pod_ip: its address as the API shows it.
        host_ip: the node's.
        source: ConfigMaps and Secrets.
    """

    def __init__(self, pod: Manifest, pod_ip: str, host_ip: str, source: ConfigSource) -> None:
        self._pod = pod
        self._namespace = str(pod["metadata"]["namespace"])
        self._pod_ip = pod_ip
        self._host_ip = host_ip
        self._source = source

    def build(self, container: Manifest, base: Mapping[str, str]) -> dict[str, str]:
        """Return ``base`` with the container's own variables over it.

        Raises:
            ContainerConfigError: a reference that is not optional leads nowhere.
        """
        environment = dict(base)
        for entry in container.get("envFrom") or []:
            environment |= self._from_whole(entry)
        for entry in container.get("env") or []:
            value = self._value(container, entry, environment)
            if value is not None:
                environment[entry["name"]] = value
        return environment

    def _value(self, container: Manifest, entry: Manifest, so_far: Mapping[str, str]) -> str | None:
        reference = entry.get("valueFrom")
        if not reference:
            return expand(str(entry.get("value") or ""), so_far)
        if "fieldRef" in reference:
            return field_value(self._pod, reference["fieldRef"]["fieldPath"], self._pod_ip, self._host_ip)
        if "resourceFieldRef" in reference:
            return resource_value(container, reference["resourceFieldRef"])
        kind = "configMapKeyRef" if "configMapKeyRef" in reference else "secretKeyRef"
        if kind not in reference:
            raise ContainerConfigError(f"env {entry['name']}: valueFrom {sorted(reference)} is not supported")
        return self._from_key(entry["name"], kind, reference[kind])

    def _from_key(self, variable: str, kind: str, key: Manifest) -> str | None:
        what = "configmap" if kind == "configMapKeyRef" else "secret"
        found = object_data(self._source, what, self._namespace, key["name"])
        if found is None or key["key"] not in found:
            if key.get("optional"):
                return None
            missing = (
                f'{what} "{key["name"]}" not found'
                if found is None
                else f"no key {key['key']!r} in {what} {key['name']}"
            )
            raise ContainerConfigError(f"env {variable}: {missing}")
        return found[key["key"]].decode()

    def _from_whole(self, entry: Manifest) -> dict[str, str]:
        what, reference = (
            ("configmap", entry["configMapRef"]) if "configMapRef" in entry else ("secret", entry["secretRef"])
        )
        found = object_data(self._source, what, self._namespace, reference["name"])
        if found is None:
            if reference.get("optional"):
                return {}
            raise ContainerConfigError(f'envFrom: {what} "{reference["name"]}" not found')
        return {entry.get("prefix", "") + key: value.decode() for key, value in found.items()}


def object_data(source: ConfigSource, what: str, namespace: str, name: str) -> dict[str, bytes] | None:
    """Return the content of a ``"configmap"`` or ``"secret"`` as bytes by key, or None when there is none."""
    found = source.configmap(namespace, name) if what == "configmap" else source.secret(namespace, name)
    if found is None:
        return None
    plain = found.get("data") or {}
    if what == "secret":
        return {key: base64.b64decode(value) for key, value in plain.items()}
    binary = found.get("binaryData") or {}
    return {key: str(value).encode() for key, value in plain.items()} | {
        key: base64.b64decode(value) for key, value in binary.items()
    }


def volume_variable(name: str) -> str:
    """Return the variable that tells a container where a volume is: ``njs-state`` gives ``VOLUME_NJS_STATE``."""
    return "VOLUME_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def rewrite_all(words: Sequence[str], rewrite: PathRewriter) -> list[str]:
    """Redirect the mount paths in all words."""
    return [rewrite(word) for word in words]
