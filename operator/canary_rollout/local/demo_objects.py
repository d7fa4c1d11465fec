"""What the demo applies: the project's own manifests and examples, with addresses and images filled in."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from canary_rollout.local.errors import LocalClusterError

Manifest = dict[str, Any]

NAMESPACE = "shop"
ROLLOUT = "checkout"
CANARY = "checkout-canary"
APP_IMAGE = "canary-rollout/demo-app"
_CHECKOUT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Choices:
    """What is changed in the examples before they are applied.

    Attributes:
        prometheus: address of Prometheus; empty: as written.
        images: image name -> whole reference to use instead (the tag of the app's image is kept when it has none).
        mode: of the nginx router: ``auto``, ``njs`` or ``reload``.
        fast: shorter holds.
        stages: replaces the stages; empty: as written.
    """

    prometheus: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    mode: str = "auto"
    fast: bool = False
    stages: tuple[Manifest, ...] = ()


def share(name: str) -> Path:
    """A directory of the checkout (``examples``, ``manifests``); they are no part of the wheel.

    Raises:
        LocalClusterError: this is an installed package and no checkout.
    """
    if not (_CHECKOUT / name).is_dir():
        raise LocalClusterError(f"there is no {name}/ beside the package: run the demo from a checkout of the project")
    return _CHECKOUT / name


def load_documents(path: Path) -> list[Manifest]:
    """All objects of a YAML file."""
    return parse_documents(path.read_text())


def parse_documents(text: str) -> list[Manifest]:
    """All objects of a YAML text."""
    return [document for document in yaml.safe_load_all(text) if document]


def example(*names: str) -> list[Manifest]:
    """The objects of some examples, in order."""
    return [document for name in names for document in load_documents(share("examples") / name)]


def chosen(documents: Iterable[Manifest], choices: Choices) -> list[Manifest]:
    """Copies of ``documents`` with the choices made."""
    result = []
    for document in copy.deepcopy(list(documents)):
        if document["kind"] == "CanaryRollout":
            _choose_spec(document["spec"], choices)
        for container in _containers(document):
            container["image"] = chosen_image(container["image"], choices.images)
        result.append(document)
    return result


def _choose_spec(spec: Manifest, choices: Choices) -> None:
    if choices.prometheus:
        spec["metrics"]["prometheus"] = choices.prometheus
    if choices.mode != "auto":
        spec["traffic"]["nginx"]["mode"] = choices.mode
    if choices.stages:
        spec["stages"] = list(choices.stages)
    if choices.fast:
        for stage in spec["stages"]:
            stage["hold"] = "4s"


def chosen_image(image: str, images: Mapping[str, str]) -> str:
    """The reference to use for ``image``."""
    name, _, tag = image.partition(":")
    wanted = images.get(name, "")
    if not wanted:
        return image
    return wanted if ":" in wanted.rpartition("/")[2] else f"{wanted}:{tag or 'latest'}"


def _containers(document: Manifest) -> list[Manifest]:
    template = (document.get("spec") or {}).get("template") or {}
    spec = template.get("spec") or {}
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def release_patch(image: str) -> Manifest:
    """A strategic merge patch of the canary's Deployment: the release of a version."""
    return {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}}
