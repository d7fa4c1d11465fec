"""``weights.json``: the part of the ConfigMap that changes during a rollout, and the only contract with the agent.

Everything in it is validated when it is written and again when it is read. ``config`` ties it to one ``nginx.conf``;
``checksum`` tells a document of the operator's from one that somebody has edited. A field that came later is left out
while it says nothing, so that operator and agents of different versions agree on the checksum.
"""

import hashlib
import json
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from canary_rollout.model.plain import parse_json
from canary_rollout.model.spec import Cohort
from canary_rollout.model.units import FULL
from canary_rollout.traffic.port import RouterError

WEIGHTS_KEY: Final = "weights.json"
CONFIG_KEY: Final = "nginx.conf"
SCHEMA: Final = 1

_KEPT: Final = 4096
"""Characters of a text that is remembered with what it says; people may write larger ones, and many."""

_CAME_LATER: Final = frozenset({"mirror", "prefixes", "pattern", "regions"})

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?\z", max_length=253)]
_Revision = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}\z")]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\z")]


class DocumentError(RouterError):
    """``weights.json`` does not say what an agent could apply; the message names the field."""


class ChecksumError(DocumentError):
    """Somebody edited ``weights.json`` by hand, or only one of the two keys."""


class RouteDocument(BaseModel):
    """What every proxy of one CanaryRollout should serve, whatever kind of proxy it is.

    Attributes:
        sequence: rises with each write, so that people see an order; identity is sequence and checksum together.
        weight: basis points. 0 is nobody at all, cohort included.
        revision: canary revision the weight is meant for, named on the canary's answers.
        stable_revision: named on stable's answers.
        cohort: people on top of the weight, and regions with weights of their own.
        mirror: share of the requests that is copied to the canary, basis points; only at weight 0.
        listen: port the proxy listens on.
        stale_after: seconds a proxy may serve a weight below 100 % without a renewed Lease.
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
    mirror: int = Field(default=0, ge=0, le=FULL)
    listen: int = Field(ge=1024, le=65535)
    stale_after: float = Field(ge=1, le=86_400)

    @model_validator(mode="after")
    def _nobody_at_zero(self) -> Self:
        if self.weight == 0 and self.cohort is not None:
            raise ValueError("weight 0 serves nobody, so there is no cohort")
        if self.weight > 0 and self.mirror > 0:
            raise ValueError("requests are copied only while nobody is served: mirror needs weight 0")
        return self

    def _content(self) -> dict[str, Any]:
        return _spoken(self.model_dump(mode="json", by_alias=True))

    @property
    def checksum(self) -> str:
        """SHA-256 over every field."""
        canonical = json.dumps(self._content(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def identity(self) -> str:
        """What a proxy acknowledges: ``<sequence>.<16 digits of the checksum>``."""
        return f"{self.sequence}.{self.checksum[:16]}"

    @property
    def configuration(self) -> str:
        """SHA-256 of a configuration beside the document; empty where there is none."""
        return ""

    @property
    def leased(self) -> bool:
        """Whether what it serves ends by itself when no renewal comes: all but nothing and everything."""
        return 0 < self.weight < FULL or self.mirror > 0

    def less_than(self, other: "RouteDocument") -> bool:
        """Whether fewer requests reach the canary than with ``other``: such a change waits for nothing."""
        return (self.weight, self.mirror) < (other.weight, other.mirror)

    def nobody(self) -> Self:
        """The same at weight 0, for the day when nobody is left to write one."""
        return self.model_copy(update={"weight": 0, "cohort": None, "mirror": 0})

    def same_route(self, other: "RouteDocument") -> bool:
        """Whether both ask for the same, whatever their sequence."""
        return self.model_copy(update={"sequence": 1}) == other.model_copy(update={"sequence": 1})

    def dump(self) -> str:
        """The text of ``weights.json``."""
        return json.dumps({**self._content(), "checksum": self.checksum}, indent=1) + "\n"


class WeightsDocument(RouteDocument):
    """What every nginx of one CanaryRollout should serve.

    Attributes:
        mode: ``auto``, or the one mode that is allowed.
        config: SHA-256 of the ``nginx.conf`` this belongs to.
    """

    mode: Literal["auto", "njs", "reload"] = "auto"
    config: _Sha256

    @property
    def configuration(self) -> str:
        """SHA-256 of ``nginx.conf``."""
        return self.config


DocumentType = TypeVar("DocumentType", bound=RouteDocument)


def _spoken(content: dict[str, Any]) -> dict[str, Any]:
    """Without the fields that came later and say nothing."""
    return {
        key: _spoken(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if value or key not in _CAME_LATER
    }


def digest(text: str) -> str:
    """SHA-256 of a text, as ``WeightsDocument.config`` holds it."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse(text: str) -> WeightsDocument:
    """Read ``weights.json``.

    Raises:
        ChecksumError: readable, but not as the operator wrote it.
        DocumentError: not readable.
    """
    return parse_as(WeightsDocument, text)


def parse_edited(text: str) -> WeightsDocument:
    """Read ``weights.json`` whoever wrote it: for showing a weight that somebody else set.

    Raises:
        DocumentError: not readable.
    """
    return parse_edited_as(WeightsDocument, text)


def parse_as(kind: type[DocumentType], text: str, key: str = WEIGHTS_KEY) -> DocumentType:
    """Read a document of one kind; ``key`` names it in messages. Read once: it is asked for at every look at a route.

    Raises:
        ChecksumError: readable, but not as the operator wrote it.
        DocumentError: not readable.
    """
    read = _parsed_before if len(text) <= _KEPT else _parsed
    return cast("DocumentType", read(kind, text, key))


def _parsed(kind: type[RouteDocument], text: str, key: str) -> RouteDocument:
    try:
        raw = parse_json(text)
        if not isinstance(raw, dict):
            raise DocumentError(f"{key} is no JSON object")
        checksum = raw.pop("checksum", None)
        document = kind.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise DocumentError(f"{key}: {where}: {first['msg']}") from error
    except ValueError as error:
        raise DocumentError(f"{key} is no JSON: {error}") from error
    if checksum != document.checksum:
        raise ChecksumError(f"{key} was changed by somebody other than the operator: its checksum does not hold")
    return document


_parsed_before: Final = lru_cache(4096)(_parsed)


def parse_edited_as(kind: type[DocumentType], text: str, key: str = WEIGHTS_KEY) -> DocumentType:
    """Read a document of one kind whoever wrote it.

    Raises:
        DocumentError: not readable.
    """
    try:
        raw = parse_json(text)
        raw["checksum"] = kind.model_validate_json(json.dumps(raw)).checksum
    except (ValueError, TypeError) as error:
        raise DocumentError(f"{key} does not parse: {error}") from error
    return cast("DocumentType", _parsed(kind, json.dumps(raw), key))
