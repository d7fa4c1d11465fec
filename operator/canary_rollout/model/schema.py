"""Structural OpenAPI schemas (what a CRD holds) from the pydantic models."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from canary_rollout.model.cel import KEY

Schema = dict[str, Any]

_LEFT_OUT: Final = ("title", "additionalProperties", "const", "discriminator")
_ONLY_IN_SPEC: Final = (
    KEY,
    "pattern",
    "enum",
    "default",
    "required",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "x-kubernetes-int-or-string",
)
_ORDER: Final = ("description", "type", "format", "enum", "default")


def spec_schema(model: type[BaseModel]) -> Schema:
    """Schema of what users write: limits, defaults and rules included."""
    document = model.model_json_schema(by_alias=True, mode="validation")
    definitions = document.pop("$defs", {})
    classes = {found.__name__: found for found in models_of(model)}
    for name, definition in {**definitions, model.__name__: document}.items():
        if name in classes:
            _add_defaults(classes[name], definition)
    return _structural(document, definitions)


def status_schema(model: type[BaseModel]) -> Schema:
    """Schema of what the operator writes: types and descriptions only.

    A limit here could only do harm: it would refuse a status, and with it the engine's memory.
    """
    document = model.model_json_schema(by_alias=True, mode="serialization")
    return _without_limits(_structural(document, document.pop("$defs", {})))


def models_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """``model`` and every model reachable from its fields, each once, parents first."""
    seen: dict[type[BaseModel], None] = {}

    def walk(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation in seen:
                return
            seen[annotation] = None
            for field in annotation.model_fields.values():
                walk(field.annotation)
        for argument in get_args(annotation):
            walk(argument)

    walk(model)
    yield from seen


def default_of(field: FieldInfo) -> Any:
    """The default as a user would write it, ``None`` where there is none worth writing."""
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ((), {}):
        return None
    annotation: Any = field.annotation
    for item in field.metadata:
        annotation = Annotated[annotation, item]
    return TypeAdapter(annotation).dump_python(value, mode="json", by_alias=True, exclude_none=True)


def _add_defaults(model: type[BaseModel], definition: Schema) -> None:
    partial = getattr(model, "PARTIAL", False)
    for name, field in model.model_fields.items():
        schema = definition["properties"][field.alias or name]
        schema.pop("default", None)
        default = default_of(field)
        if default is not None and not partial:
            schema["default"] = _without_empty(default)


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_empty(item) for key, item in value.items() if item != []}
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value


def _structural(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    schema = _inlined(schema, definitions)
    extra = schema.get("additionalProperties")
    constant = schema.get("const")
    schema = {key: value for key, value in schema.items() if key not in _LEFT_OUT}
    if isinstance(extra, dict):
        schema["additionalProperties"] = _structural(extra, definitions)
    elif extra is True:
        schema["x-kubernetes-preserve-unknown-fields"] = True
    if constant is not None:
        schema["enum"] = [constant]
    if schema.get("type") == "string" and "enum" in schema:
        # Without it the API server reckons a rule over this field with strings of three megabytes.
        schema["maxLength"] = max(len(choice) for choice in schema["enum"])
    if "description" in schema:
        schema["description"] = _prose(schema["description"])
    if "properties" in schema:
        schema["properties"] = {key: _structural(value, definitions) for key, value in schema["properties"].items()}
    if "items" in schema:
        schema["items"] = _structural(schema["items"], definitions)
    return dict(sorted(schema.items(), key=_place))


def _inlined(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """``schema`` without $ref and without ``anyOf`` null (in a CRD an optional field is simply not required)."""
    if "anyOf" in schema:
        some = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
        if len(some) != 1:
            raise TypeError(f"a structural schema has no unions, found {schema['anyOf']}: give the field one type")
        schema = _merged(some[0], {key: value for key, value in schema.items() if key != "anyOf"})
        return _inlined(schema, definitions)
    if "$ref" in schema:
        definition = definitions[schema["$ref"].rsplit("/", 1)[-1]]
        return _inlined(
            _merged(definition, {key: value for key, value in schema.items() if key != "$ref"}), definitions
        )
    return schema


def _merged(base: Schema, over: Schema) -> Schema:
    both = base.get(KEY, []) + over.get(KEY, [])
    return {**base, **over, **({KEY: both} if both else {})}


def _prose(text: str) -> str:
    """A docstring as one paragraph without markup."""
    return re.sub(r"\s+", " ", text.replace("``", "")).strip()


def _place(item: tuple[str, Any]) -> tuple[int, str]:
    key = item[0]
    late = {"properties": 1, "items": 1, KEY: 2}
    return (_ORDER.index(key) if key in _ORDER else len(_ORDER) + late.get(key, 0), key)


def _without_limits(schema: Schema) -> Schema:
    kept = {key: value for key, value in schema.items() if key not in _ONLY_IN_SPEC}
    if "properties" in kept:
        kept["properties"] = {key: _without_limits(value) for key, value in kept["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), dict):
            kept[key] = _without_limits(kept[key])
    if "type" not in kept:
        kept["type"] = "string"
    return kept
