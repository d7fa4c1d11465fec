"""Images are commands: what the node runs for a container's ``image``."""

import sys
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field

from .errors import ImageUnknownError


@dataclass(frozen=True)
class Image:
    """What an image is on this node.

    ``{tag}``, ``{image}`` and ``{python}`` in the arguments become the reference's tag, the whole reference and the
    running interpreter.

    Attributes:
        entrypoint: replaced by a container's ``command``.
        cmd: replaced by a container's ``args``, and dropped when it gives a ``command``.
        env: variables that the container's own override.
        tags: the tags that exist; others fail to pull. None: every tag exists.
        stop_signal: what ends it in an orderly way (``SIGQUIT`` for nginx).
    """

    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    tags: frozenset[str] | None = None
    stop_signal: str = "SIGTERM"


ImageSpec = Image | Sequence[str]
ImageRegistry = MutableMapping[str, ImageSpec]


def split_reference(reference: str) -> tuple[str, str]:
    """Split an image reference into name and tag (``latest`` without one; a digest is no tag)."""
    plain = reference.partition("@")[0]
    name, colon, tag = plain.rpartition(":")
    if not colon or "/" in tag:  # the colon belongs to a registry's port
        return plain, "latest"
    return name, tag


def find_image(registry: Mapping[str, ImageSpec], reference: str) -> Image:
    """Return the image for a reference: by the exact reference first, then by the name without its tag.

    Raises:
        ImageUnknownError: neither is registered, or the tag does not exist.
    """
    name, tag = split_reference(reference)
    entry = registry.get(reference, registry.get(name))
    if entry is None:
        known = ", ".join(sorted(registry)) or "none"
        raise ImageUnknownError(
            f"image {reference!r} is not known to the local node (known: {known}): register a command for it in "
            "LocalCluster(images=...)"
        )
    image = entry if isinstance(entry, Image) else Image(entrypoint=tuple(entry))
    if image.tags is not None and tag not in image.tags:
        raise ImageUnknownError(f"image {name!r} has no tag {tag!r} (tags: {', '.join(sorted(image.tags))})")
    return image


def command_line(image: Image, reference: str, command: Sequence[str], args: Sequence[str]) -> list[str]:
    """Return the argument vector, with a container's ``command`` and ``args`` honoured as Kubernetes does."""
    _, tag = split_reference(reference)
    values = {"{tag}": tag, "{image}": reference, "{python}": sys.executable}

    def filled(words: Sequence[str]) -> list[str]:
        return [_replace_all(word, values) for word in words]

    if command:
        return [*command, *args]
    return [*filled(image.entrypoint), *(args or filled(image.cmd))]


def _replace_all(text: str, values: Mapping[str, str]) -> str:
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text
