"""People who are routed to the canary on top of the weight, and regions with weights of their own."""

from typing import Final, Self

from pydantic import ConfigDict, Field, model_validator

from canary_rollout.model import cel
from canary_rollout.model.cel import Rule
from canary_rollout.model.fields import HeaderName, SafePattern, SafeValue, SpecModel
from canary_rollout.model.units import Weight

_ONE_KEY: Final = "a cohort names exactly one of header and cookie"
_SOMEBODY: Final = "a cohort names somebody: values, prefixes, pattern or regions"


class RegionWeight(SpecModel):
    """One region's own weight."""

    value: SafeValue = Field(description="Value of the region header, such as eu-west-1.")
    weight: Weight = Field(description="The canary's share of that region's traffic, instead of the stage's weight.")


class Regions(SpecModel):
    """Weights by a header that names the region."""

    header: HeaderName = Field(description="Request header that names the region, such as X-Region.")
    weights: tuple[RegionWeight, ...] = Field(min_length=1, max_length=16, description="Regions with their own weight.")


class Cohort(SpecModel):
    """People routed to the canary by a header or a cookie, on top of the weight."""

    model_config = ConfigDict(
        json_schema_extra=cel.rules(
            Rule(
                "!(has(self.header) && has(self.cookie)) && (has(self.header) || has(self.cookie) || has(self.regions))",
                _ONE_KEY,
                f"'{_ONE_KEY}; found ' + " + cel.found("header", "cookie"),
            ),
            Rule(
                "!(has(self.header) || has(self.cookie)) || (has(self.values) && self.values.size() > 0) "
                "|| (has(self.prefixes) && self.prefixes.size() > 0) || has(self.pattern)",
                _SOMEBODY,
            ),
        )
    )

    header: HeaderName | None = Field(None, description="Request header to look at, such as X-Cohort.")
    cookie: HeaderName | None = Field(None, description="Cookie to look at, instead of a header.")
    values: tuple[SafeValue, ...] = Field((), max_length=64, description="Values that belong to the cohort.")
    prefixes: tuple[SafeValue, ...] = Field(
        (), max_length=16, description="Beginnings of values that belong to the cohort."
    )
    pattern: SafePattern | None = Field(
        None, description="What a value that belongs to the cohort looks like; * is anything, as in Mozilla*Firefox/*."
    )
    regions: Regions | None = Field(None, description="Regions with a weight of their own, by a header.")

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        keys = [name for name in ("header", "cookie") if getattr(self, name) is not None]
        people = bool(self.values or self.prefixes or self.pattern is not None)
        if len(keys) > 1 or (not keys and (people or self.regions is None)):
            raise ValueError(f"{_ONE_KEY}; found {' and '.join(keys) or 'none'}")
        if keys and not people:
            raise ValueError(_SOMEBODY)
        if self.regions is not None:
            names = [region.value for region in self.regions.weights]
            if len(set(names)) != len(names):
                raise ValueError("a region has one weight; found one twice: remove it")
        return self
