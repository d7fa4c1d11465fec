"""``weights.json``: the part of the ConfigMap that changes during a rollout, and the only contract with the agent.

Everything in it is validated when it is written and again when it is read. ``config`` ties it to one ``nginx.conf``;
``checksum`` tells a document of the operator's from one that somebody has edited.
"""

import hashlib
import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from canary_rollout.model.plain import parse_json
from canary_rollout.model.spec import Cohort
from canary_rollout.model.units import FULL
from canary_rollout.traffic.port import RouterError

WEIGHTS_KEY: Final = "weights.json"
CONFIG_KEY: Final = "nginx.conf"
SCHEMA: Final = 1

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?\z", max_length=253)]
_Revision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}\z")]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\z")]


class DocumentError(RouterError):
    """``weights.json`` does not say what an agent could apply; the message names the field."""


class ChecksumError(DocumentError):
    """Somebody edited ``weights.json`` by hand, or only one of the two keys."""


class WeightsDocument(BaseModel):
    """What every proxy of one CanaryRollout should serve.

    Attributes:
        sequence: rises with each write, so that people see an order; identity is sequence and checksum together.
        weight: basis points. 0 is nobody at all, cohort included.
        revision: canary revision the weight is meant for, named on the canary's answers.
        stable_revision: named on stable's answers.
        cohort: people on top of the weight.
        listen: port nginx listens on.
        stale_after: seconds a proxy may serve a weight below 100 % without a renewed Lease.
        mode: ``auto``, or the one mode that is allowed.
        config: SHA-256 of the ``nginx.conf`` this belongs to.
    """

    model_config = ConfigDict(frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")

    schema_version: Literal[1] = SCHEMA
    namespace: _Name
    rollout: _Name
    sequence: int = Field(ge=1, le=2**53)
    weight: int = Field(ge=0, le=FULL)
    revision: _Revision = ""
    stable_revision: _Revision = ""
    cohort: Cohort | None = None
    listen: int = Field(ge=1024, le=65535)
    stale_after: float = Field(ge=1, le=86_400)
    mode: Literal["auto", "njs", "reload"] = "auto"
    config: _Sha256

    @model_validator(mode="after")
    def _nobody_at_zero(self) -> "WeightsDocument":
        if self.weight == 0 and self.cohort is not None:
            raise ValueError("weight 0 serves nobody, so there is no cohort")
        return self

    def _content(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)

    @property
    def checksum(self) -> str:
        """SHA-256 over every field."""
        canonical = json.dumps(self._content(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def identity(self) -> str:
        """What a proxy acknowledges: ``<sequence>.<16 digits of the checksum>``."""
        return f"{self.sequence}.{self.checksum[:16]}"

    def same_route(self, other: "WeightsDocument") -> bool:
        """Whether both ask for the same, whatever their sequence."""
        return self.model_copy(update={"sequence": 1}) == other.model_copy(update={"sequence": 1})

    def dump(self) -> str:
        """The text of ``weights.json``."""
        return json.dumps({**self._content(), "checksum": self.checksum}, indent=1) + "\n"


def digest(text: str) -> str:
    """SHA-256 of a text, as ``WeightsDocument.config`` holds it."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse(text: str) -> WeightsDocument:
    """Read ``weights.json``.

    Raises:
        ChecksumError: readable, but not as the operator wrote it.
        DocumentError: not readable.
    """
    try:
        raw = parse_json(text)
        if not isinstance(raw, dict):
            raise DocumentError(f"{WEIGHTS_KEY} is no JSON object")
        checksum = raw.pop("checksum", None)
        document = WeightsDocument.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise DocumentError(f"{WEIGHTS_KEY}: {where}: {first['msg']}") from error
    except ValueError as error:
        raise DocumentError(f"{WEIGHTS_KEY} is no JSON: {error}") from error
    if checksum != document.checksum:
        raise ChecksumError(
            f"{WEIGHTS_KEY} was changed by somebody other than the operator: its checksum does not hold"
        )
    return document


def parse_edited(text: str) -> WeightsDocument:
    """Read ``weights.json`` whoever wrote it: for showing a weight that somebody else set.

    Raises:
        DocumentError: not readable.
    """
    try:
        raw = parse_json(text)
        raw["checksum"] = WeightsDocument.model_validate_json(json.dumps(raw)).checksum
    except (ValueError, TypeError) as error:
        raise DocumentError(f"{WEIGHTS_KEY} does not parse: {error}") from error
    return parse(json.dumps(raw))
