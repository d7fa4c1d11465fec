"""Copy into the chart what it shares with manifests/: the CRD and the RBAC rules. ``--check`` only compares."""  # noqa: INP001

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "canary-rollout"
COPIES = {
    ROOT / "crds" / "canaryrollout.yaml": CHART / "crds" / "canaryrollout.yaml",
    ROOT / "manifests" / "rbac.yaml": CHART / "files" / "rbac.yaml",
}


def main(arguments: list[str]) -> int:
    """Return 1 when ``--check`` finds a difference."""
    differing = [
        copy for source, copy in COPIES.items() if not copy.is_file() or copy.read_bytes() != source.read_bytes()
    ]
    if "--check" in arguments:
        for copy in differing:
            sys.stderr.write(
                f"{copy.relative_to(ROOT)} is not a copy of its source: run `make crds` and commit the result\n"
            )
        return 1 if differing else 0
    for source, copy in COPIES.items():
        copy.write_bytes(source.read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
