"""One Prometheus server as it is spoken to: address and credentials. Rollouts share queries only where all of it is equal."""

import base64
import ssl
from dataclasses import dataclass, field
from typing import Final, Protocol

from canary_rollout.metrics.errors import MetricsError
from canary_rollout.model.metrics import Access, Metrics, SecretKey

LONGEST_SECRET: Final = 256 * 1024
"""Bytes; a bundle of certificates fits."""


class CredentialsError(MetricsError):
    """A Secret that is named is not there, or does not hold what it should; the message names it and holds no secret."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server.

    Attributes:
        url: address, without a trailing slash.
        headers: sent with every query; never shown.
        authorities: certificates (PEM) to trust; empty: the system's.
        verify: whether the certificate is checked.
        problem: why it cannot be asked (credentials that are missing); empty if it can.
    """

    url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    authorities: str = field(default="", repr=False)
    verify: bool = True
    problem: str = ""


class Secrets(Protocol):
    """Reads Secrets of one namespace."""

    async def read(self, name: str) -> dict[str, bytes]:
        """Return the data of a Secret.

        Raises:
            CredentialsError: it is not there, or may not be read.
        """
        ...


class NoSecrets:
    """Where there is nobody to ask."""

    async def read(self, name: str) -> dict[str, bytes]:
        """Refuse."""
        raise CredentialsError(f"Secret {name} cannot be read here; name a Prometheus that asks for no credentials")


async def targets_of(metrics: Metrics, secrets: Secrets) -> dict[str, Target]:
    """Return the servers of a spec by name, the main one as ``""``. Missing credentials are told by ``Target.problem``."""
    found = {"": await _target(metrics.prometheus, metrics.access, secrets)}
    for server in metrics.servers:
        found[server.name] = await _target(server.prometheus, server.access, secrets)
    return found


async def _target(url: str, access: Access, secrets: Secrets) -> Target:
    url = url.rstrip("/")
    try:
        headers = await _headers(access, secrets)
        ca = access.tls.ca_secret_ref
        authorities = await _text(ca, secrets) if ca is not None else ""
    except CredentialsError as error:
        return Target(url, problem=str(error))
    try:
        if authorities:
            ssl.create_default_context(cadata=authorities)
    except ssl.SSLError:
        assert ca is not None  # noqa: S101 - it is where they came from
        return Target(url, problem=f"Secret {ca.name}, key {ca.key} holds no certificate; write a PEM bundle into it")
    return Target(url, headers, authorities, verify=not access.tls.insecure_skip_verify)


async def _headers(access: Access, secrets: Secrets) -> tuple[tuple[str, str], ...]:
    headers: list[tuple[str, str]] = []
    if access.bearer_token_secret_ref is not None:
        headers.append(("Authorization", f"Bearer {await _header_text(access.bearer_token_secret_ref, secrets)}"))
    if access.basic_auth is not None:
        password = await _text(access.basic_auth.password_secret_ref, secrets)
        pair = f"{access.basic_auth.username}:{password}".encode()
        headers.append(("Authorization", f"Basic {base64.b64encode(pair).decode()}"))
    for header in access.headers:
        if header.secret_ref is not None:
            headers.append((header.name, await _header_text(header.secret_ref, secrets)))
        else:
            headers.append((header.name, header.value or ""))
    return tuple(headers)


async def _header_text(key: SecretKey, secrets: Secrets) -> str:
    value = await _text(key, secrets)
    if not value or not all(" " <= character <= "~" for character in value):
        raise CredentialsError(f"Secret {key.name}, key {key.key} is no text that a header can hold (printable ASCII)")
    return value


async def _text(key: SecretKey, secrets: Secrets) -> str:
    data = await secrets.read(key.name)
    raw = data.get(key.key)
    if raw is None:
        raise CredentialsError(f"Secret {key.name} has no key {key.key}; it has {', '.join(sorted(data)) or 'none'}")
    if len(raw) > LONGEST_SECRET:
        raise CredentialsError(
            f"Secret {key.name}, key {key.key} has {len(raw)} bytes, at most {LONGEST_SECRET} are read"
        )
    try:
        return raw.decode().strip("\r\n")  # most Secrets are made from files that end in a line break
    except UnicodeDecodeError as error:
        raise CredentialsError(f"Secret {key.name}, key {key.key} is not text") from error
