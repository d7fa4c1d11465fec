"""Lists of weighted backends in somebody else's object: what share the canary has, and the JSON Patch that changes it.

The data planes concerned take integers as proportions of their sum. We write them out of 10,000. The same share can be
written twofold (out of 20,000): that is done where a write must leave a trace although the share stays the same, since
a patch that changes nothing is not recorded by the API server (see :mod:`traffic.foreign`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from canary_rollout.kube.port import Object
from canary_rollout.model.units import FULL, format_weight
from canary_rollout.traffic.port import RouterError

_TWOFOLD: Final = 2


@dataclass(frozen=True, slots=True)
class Split:
    """One list of weighted backends that names both versions.

    Attributes:
        path: JSON pointer of the list.
        stable: index of stable's backend.
        canary: index of the canary's backend.
        weights: what each backend of the list weighs, defaults filled in.
        names: by which each backend is known, as it stands under ``name_at``.
        name_at: JSON pointer of that name inside a backend.
        where: the list for people, as in ``rule 2 of HTTPRoute shop/checkout``.
        weight_at: JSON pointer of the weight inside a backend.
    """

    path: str
    stable: int
    canary: int
    weights: tuple[int, ...]
    names: tuple[str, ...]
    where: str
    name_at: str = "/name"
    weight_at: str = "/weight"

    @property
    def rule(self) -> int:
        """Index of the rule or route that the list belongs to (3 in ``/spec/http/3/route``)."""
        return int(self.path.split("/")[3])

    @property
    def others(self) -> int:
        """What backends that are neither stable nor this canary weigh together."""
        return sum(self.weights) - self.weights[self.stable] - self.weights[self.canary]

    @property
    def share(self) -> int:
        """The canary's share, basis points; never 0 while it gets anything."""
        total, canary = sum(self.weights), self.weights[self.canary]
        return max(1, round(canary * FULL / total)) if canary > 0 else 0

    def gives(self, weight: int) -> bool:
        """Whether the share is exactly ``weight``, and stable has what the others leave."""
        total = sum(self.weights)
        return total > 0 and self.weights[self.canary] * FULL == weight * total

    def problem(self) -> str:
        """Why the canary's share cannot be set without changing somebody else's; empty when it can."""
        if self.others == 0 or abs(sum(self.weights) - FULL) <= 1:
            return ""
        shares = ", ".join(
            f"{name} {format_weight(round(weight * FULL / sum(self.weights)))}"
            for name, weight in zip(self.names, self.weights, strict=True)
        )
        return (
            f"{self.where} has further backends, whose shares can only be kept where all weights add up to {FULL}: write "
            f"them so (now they add up to {sum(self.weights)}: {shares})"
        )

    def wanted(self, weight: int, *, trace: bool) -> tuple[int, int]:
        """Stable's and the canary's weight for a share.

        Args:
            weight: basis points.
            trace: whether something must change although the share may be the same.

        Raises:
            RouterError: the other backends leave no room for it.
        """
        stable, others = FULL - weight - self.others, self.others
        if stable < 0:
            raise RouterError(
                f"{self.where}: other backends have {format_weight(others)}, so the canary can have "
                f"{format_weight(FULL - others)} at most, not {format_weight(weight)}"
            )
        present = (self.weights[self.stable], self.weights[self.canary])
        if not trace or present != (stable, weight):
            return stable, weight
        if others == 0:
            return stable * _TWOFOLD, weight * _TWOFOLD
        # Doubling would halve the others: a hundredth of a per cent less in the sum moves no share by as much as that.
        return (stable - 1, weight) if stable > 0 else (stable + 1, weight)

    def to_nothing(self, *, trace: bool = False) -> tuple[int, int]:
        """Stable's and the canary's weight for share 0, whatever the others weigh: stable takes the canary's part.

        Args:
            trace: whether something must change although the canary has nothing already.
        """
        present, part = (self.weights[self.stable], self.weights[self.canary]), sum(self.weights) - self.others
        if self.others == 0:
            return (FULL * _TWOFOLD, 0) if trace and present == (FULL, 0) else (FULL, 0)
        if not trace or present != (part, 0):
            return part, 0
        # Towards the sum that a list with others should have, so that repeating it comes back.
        return (part - 1, 0) if part > 0 and sum(self.weights) >= FULL else (part + 1, 0)


def share_of(splits: Iterable[Split]) -> int:
    """The largest share the canary has in any of the lists, basis points."""
    return max((split.share for split in splits), default=0)


def lowers(splits: Iterable[Split], weight: int) -> bool:
    """Whether ``weight`` is less than now somewhere, and more than now nowhere."""
    shares = [split.share for split in splits]
    return any(share > weight for share in shares) and all(share >= weight for share in shares)


def changes(splits: Iterable[Split], weight: int, *, trace: bool) -> list[Object]:
    """JSON Patch operations that give the canary ``weight`` in all of the lists, each guarded by the backends' names.

    Args:
        splits: the lists.
        weight: basis points.
        trace: whether our name must be on the lists afterwards, even where every share is right already.

    Raises:
        RouterError: other backends leave no room for it; never for a weight of 0.
    """
    lists = tuple(splits)
    trace = trace and all(split.gives(weight) for split in lists)  # any change leaves our name
    operations: list[Object] = []
    for split in lists:
        if split.gives(weight) and not trace:
            continue
        stable, canary = split.wanted(weight, trace=trace) if weight else split.to_nothing(trace=trace)
        trace = False
        for index, value in ((split.stable, stable), (split.canary, canary)):
            backend = f"{split.path}/{index}"
            operations.append({"op": "test", "path": f"{backend}{split.name_at}", "value": split.names[index]})
            operations.append({"op": "add", "path": f"{backend}{split.weight_at}", "value": value})
    return operations
