"""Strings a user may write, each with the one pattern that admits it and the sentence that says what is wrong otherwise.

The same pattern and the same sentence serve pydantic and the CRD (pattern and CEL), so that nothing reaches a config
file, a query or a URL by way of the one that forgot to look.
"""

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from canary_rollout.model.cel import KEY, Rule, literal, quoted
from canary_rollout.model.stored import is_stored, is_stored_spec

_SHOWN: Final = 60


class SpecModel(BaseModel):
    """Base of every part of the spec: camelCase outside, unknown fields refused, immutable."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


def shown(value: object) -> str:
    """``value`` for a message: quoted, control characters escaped, cut after 60 characters."""
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


@dataclass(frozen=True)
class Text:
    """A pydantic annotation: a string that matches ``pattern`` as a whole.

    Attributes:
        pattern: anchored with ^ and $, in the dialect that Python and RE2 share.
        longest: characters.
        wanted: completes "<value> is not …": what it should be, and how to mend it.
        refused: further (pattern, sentence) pairs for mistakes people really make; the pattern must not be found.
        shortest: characters.
        stored: what becomes of a value of ``refused`` in something that was stored before those patterns were added (see
            ``model.stored``): it is refused there too, it counts, or it is read as "".
    """

    pattern: str
    longest: int
    wanted: str
    refused: tuple[tuple[str, str], ...] = ()
    shortest: int = 1
    stored: Literal["refused", "counts", "empty"] = "refused"

    def check(self, value: str) -> str:
        """``value`` itself; raises PydanticCustomError with the sentence."""
        for pattern, sentence in self.refused:
            if re.search(pattern, value):
                raise PydanticCustomError("refused", "{sentence}", {"sentence": sentence})
        return self._checked_shape(value)

    def check_stored(self, value: str, info: ValidationInfo) -> str:
        """As :meth:`check`, but for what was stored before ``refused`` was there."""
        if not is_stored(info.context):
            return self.check(value)
        self._checked_shape(value)
        gone = self.stored == "empty" and is_stored_spec(info.context)
        return "" if gone and any(re.search(pattern, value) for pattern, _ in self.refused) else value

    def _checked_shape(self, value: str) -> str:
        # fullmatch on the bare pattern: "$" would admit a trailing newline.
        fits = self.shortest <= len(value) <= self.longest
        if not fits or not re.fullmatch(self.pattern.removeprefix("^").removesuffix("$"), value):
            raise PydanticCustomError("text", "{shown} is not {wanted}", {"shown": shown(value), "wanted": self.wanted})
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check after pydantic's own string check."""
        if self.stored != "refused":
            return core_schema.with_info_after_validator_function(self.check_stored, handler(source))
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The same for the CRD."""
        rules = [Rule(f"!self.matches({literal(pattern)})", sentence) for pattern, sentence in self.refused]
        rules.append(
            Rule(
                f"self.matches({literal(self.pattern)})",
                f"this is not {self.wanted}",
                f"{quoted('self')} + {literal(' is not ' + self.wanted)}",
            )
        )
        return {
            "type": "string",
            "pattern": self.pattern,
            "minLength": self.shortest,
            "maxLength": self.longest,
            KEY: [rule.to_dict() for rule in rules],
        }


DnsLabel = Annotated[
    str,
    Text(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        63,
        'a name: use lower-case letters, digits and "-", at most 63 characters, as in checkout-canary',
    ),
]
DnsName = Annotated[
    str,
    Text(
        r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        253,
        'the name of an object: use lower-case letters, digits, "-" and ".", as in checkout-canary',
    ),
]
HeaderName = Annotated[
    str,
    Text(
        r"^[A-Za-z][A-Za-z0-9-]{0,62}$",
        63,
        'a header or cookie name: use a letter, then letters, digits and "-", as in X-Tenant-ID',
    ),
]
SafeValue = Annotated[
    str,
    Text(
        r"^[A-Za-z0-9._-]{1,64}$",
        64,
        'a plain value: use 1 to 64 letters, digits, ".", "_" and "-"',
    ),
]
ControllerVersion = Annotated[
    str,
    Text(
        r"^v?[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}$",
        15,
        "a version: use three numbers, as in 1.12.1",
    ),
]
LabelName = Annotated[
    str,
    Text(
        r"^[a-zA-Z_][a-zA-Z0-9_]*$",
        63,
        'the name of a Prometheus label: use letters, digits and "_", as in version',
    ),
]
PromQL = Annotated[str, Field(min_length=1, max_length=4096)]
Url = Annotated[
    str,
    Text(
        r"^https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$",
        512,
        "an http or https address of a host, a port and a path, as in http://prometheus.monitoring:9090",
        refused=(
            (
                "@",
                "this address carries credentials (an @ in it): addresses in a CanaryRollout are readable by everybody",
            ),
        ),
    ),
]
PathPointer = Annotated[
    str,
    Text(
        r"^/(metadata/(labels|annotations)|spec)(/([A-Za-z0-9._-]|~0|~1)+)+$",
        256,
        "a path inside the pod template: begin with /spec/, /metadata/labels/ or /metadata/annotations/, "
        "name list elements by index or name, and write ~1 for / and ~0 for ~, as in /spec/containers/0/env/VERSION",
        refused=(
            (
                "^/spec/template/",
                "paths begin inside the pod template: leave /spec/template away, as in /spec/containers",
            ),
        ),
    ),
]
Hostname = Annotated[
    str,
    Text(
        r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        253,
        'a host name: use lower-case letters, digits, "-" and ".", as in shop.example.com or *.example.com',
    ),
]
UrlPath = Annotated[
    str,
    Text(
        r"^/[A-Za-z0-9._~/-]*$",
        256,
        'a path: begin with "/", then letters, digits, ".", "_", "~", "-" and "/", as in /checkout',
    ),
]
TenantName = Annotated[
    str,
    Text(
        r"^[A-Za-z0-9][A-Za-z0-9._@:-]{0,63}$",
        64,
        'a tenant: use a letter or digit, then letters, digits, ".", "_", "@", ":" and "-", at most 64 characters',
    ),
]
SafePattern = Annotated[
    str,
    Text(
        r"^[A-Za-z0-9 ._/()-]{1,64}(\*[A-Za-z0-9 ._/()-]{1,64}){0,4}\*?$",
        128,
        'a pattern: use letters, digits, " ", ".", "_", "/", "(", ")", "-", and "*" for anything between, as in Mozilla*Firefox/*',
    ),
]
Network = Annotated[
    str,
    Text(
        r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f:]{2,39})(/[0-9]{1,3})?$",
        43,
        "an address or a network: as in 10.0.0.7, 10.0.0.0/8 or fd00::/8",
    ),
]
