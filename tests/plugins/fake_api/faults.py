"""What may go wrong with a call, chosen by a match and used up after some times; and the end of a process."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from canary_rollout.kube.port import Resource


class Killed(BaseException):
    """The process ended at this point; no ``except Exception`` sees it."""


@dataclass(frozen=True)
class Match:
    """Which calls. ``None`` and the empty string match all."""

    verb: str = ""
    resource: Resource | None = None
    namespace: str | None = None
    name: str | None = None
    subresource: str | None = None
    client: str = ""

    def fits(self, call) -> bool:
        return (
            self.verb in {"", call.verb}
            and self.resource in {None, call.resource}
            and self.namespace in {None, call.namespace}
            and self.name in {None, call.name}
            and (self.subresource is None or self.subresource == call.subresource)
            and self.client in {"", call.client}
        )


@dataclass(frozen=True)
class Answer:
    """Refuse with this status; nothing takes effect."""

    code: int
    message: str = "injected fault"
    reason: str = ""
    retry_after: int = 0


@dataclass(frozen=True)
class Hang:
    """Never answer; ``after_effect``: the call took effect."""

    after_effect: bool = False


@dataclass(frozen=True)
class Drop:
    """Close the connection without an answer; ``after_effect``: the call took effect."""

    after_effect: bool = False


@dataclass(frozen=True)
class Slow:
    """Take effect at once, answer only after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Before:
    """Do something (somebody else's write) right before the call takes effect, then carry on."""

    act: Callable[[], object]


@dataclass(frozen=True)
class Pass:
    """Let it through: what is to happen to the n-th call that matches comes after n - 1 of these."""


@dataclass
class Rule:
    match: Match
    fault: object
    times: int | None


@dataclass
class Kill:
    """Where the process of ``client`` ends: at its ``n``-th counted call (1, 2, ...)."""

    n: int
    after: bool
    client: str


@dataclass
class Faults:
    """The rules in force."""

    rules: list[Rule] = field(default_factory=list)
    kill: Kill | None = None

    def take(self, call) -> object | None:
        """The first fault that fits, used up once."""
        for rule in self.rules:
            if rule.times != 0 and rule.match.fits(call):
                if rule.times is not None:
                    rule.times -= 1
                return rule.fault
        return None


WRITES = {"create", "patch", "update", "delete"}


def kill_points(calls: Iterable) -> Iterator[tuple[int, bool]]:
    """Every ``(n, after)`` at which a process can die between two of its recorded calls; reads have no after-effect."""
    for n, call in enumerate((call for call in calls if call.verb != "watch"), start=1):
        yield n, False
        if call.verb in WRITES:
            yield n, True
