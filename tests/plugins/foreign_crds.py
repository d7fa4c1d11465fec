"""The real CRDs of other people's data planes: from the folder beside the checkout, else from their Go modules."""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import yaml
from local_cluster import until_served

from canary_rollout.local.tools import ensure_tool

BESIDE = Path(__file__).parents[3] / "shared" / "crds"


@dataclass(frozen=True)
class Source:
    """Where a data plane's CRDs are: below the folder beside the checkout, and below a Go module's.

    Attributes:
        beside: files below the folder beside the checkout.
        module: Go module and version; empty: none can be downloaded.
        files: patterns of files in the module.
        checksum: of the module, as ``go.sum`` would hold it.
    """

    beside: tuple[str, ...]
    module: str = ""
    files: tuple[str, ...] = ()
    checksum: str = ""


SOURCES = {
    "gateway-api": Source(
        (
            "gateway-api/gateway.networking.k8s.io_gatewayclasses.yaml",
            "gateway-api/gateway.networking.k8s.io_gateways.yaml",
            "gateway-api/gateway.networking.k8s.io_httproutes.yaml",
            "gateway-api/gateway.networking.k8s.io_grpcroutes.yaml",
            "gateway-api/gateway.networking.k8s.io_referencegrants.yaml",
            "gateway-api/gateway.networking.k8s.io_backendtlspolicies.yaml",
        ),
        "sigs.k8s.io/gateway-api@v1.4.1",
        ("config/crd/standard/*.yaml",),
        "h1:NPxFutNkKNa8UfLd2CMlEuhIPMQgDQ6DXNKG9sHbJU8=",
    ),
    "contour": Source(
        ("contour/crds.yaml",),
        "github.com/projectcontour/contour@v1.33.8",
        ("examples/contour/01-crds.yaml",),
        "h1:QoOfwqWws+CVRFpsRC2+f1DmB5IdurtyUtepIsiWfE0=",
    ),
    "istio": Source(
        ("istio/crds.yaml",),
        "istio.io/api@v1.28.0",
        ("kubernetes/customresourcedefinitions.gen.yaml",),
        "h1:0fYY9G03CAdFwE/fCkpr0v7kKsy+Hz9OCCjLNBNLbnU=",
    ),
    "traefik": Source(
        ("traefik/crds.yaml",),
        "github.com/traefik/traefik/v3@v3.6.2",
        ("docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml",),
        "h1:nR6rGDV8R1kT1BB3n3sPN86d4D8F17ew6sQMVJlTJZ8=",
    ),
    "nginx-ingress": Source(
        ("nginx-ingress/virtualservers.yaml", "nginx-ingress/virtualserverroutes.yaml"),  # no module of it can be had
    ),
}


_INSTALLED: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


def available(name: str) -> bool:
    """Whether a data plane's CRDs can be had here."""
    source = SOURCES[name]
    return bool(source.module) or all((BESIDE / file).is_file() for file in source.beside)


async def crds(name: str) -> list[dict[str, Any]]:
    """The CustomResourceDefinitions of one data plane."""
    source = SOURCES[name]
    files = [BESIDE / file for file in source.beside]
    if not all(file.is_file() for file in files):
        module = await _module(source.module, source.checksum)
        files = [file for pattern in source.files for file in sorted(module.glob(pattern))]
        assert files, f"{source.module} has none of {source.files}"
    documents = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return [one for one in documents if one and one["kind"] == "CustomResourceDefinition"]


async def install_crds(cluster: Any, *names: str) -> None:
    """Install those that are not installed yet, and return once their kinds are served."""
    there = _INSTALLED.setdefault(cluster, set())
    found = [one for name in names if name not in there for one in await crds(name)]
    if not found:
        return
    there.update(names)
    await cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=yaml.safe_dump_all(found))
    await until_served(cluster, *(one["metadata"]["name"] for one in found))


async def _module(module: str, checksum: str) -> Path:
    go = await ensure_tool("go")
    process = await asyncio.create_subprocess_exec(
        str(go),
        "mod",
        "download",
        "-json",
        module,
        # Not every mirror offers the checksum database: the sum is compared here instead.
        env={**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=mod", "GONOSUMDB": "*"},
        cwd="/",
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, f"go mod download {module} failed"
    answer = json.loads(output)
    assert answer["Sum"] == checksum, f"{module} is not what it was: {answer['Sum']} instead of {checksum}"
    return Path(answer["Dir"])
