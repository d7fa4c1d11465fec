"""Checks the API server makes itself: CEL rules (``x-kubernetes-validations``), written beside the models they guard.

Every message says what is wrong, with which value, and how to mend it; the field path comes from the API server. The
models repeat each check in Python for objects that were stored before and for ``validate`` without a cluster.
"""

from dataclasses import dataclass
from typing import Any, Final

KEY: Final = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Rule:
    """One CEL rule.

    Attributes:
        rule: expression that must be true; ``self`` is the value it stands at.
        message: one sentence, at most 2048 characters, without line breaks.
        expression: CEL expression for a message that names the value; ``message`` stands in where it fails.
        field: field to blame, relative to ``self``, such as ``.weight``.
    """

    rule: str
    message: str
    expression: str = ""
    field: str = ""

    def to_dict(self) -> dict[str, str]:
        """The rule as the CRD spells it."""
        parts = {
            "rule": self.rule,
            "message": self.message,
            "messageExpression": self.expression,
            "fieldPath": self.field,
        }
        return {key: value for key, value in parts.items() if value}


def rules(*given: Rule) -> dict[str, Any]:
    """``json_schema_extra`` of a model or a field."""
    return {KEY: [rule.to_dict() for rule in given]}


def literal(text: str) -> str:
    """``text`` as a CEL string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def quoted(expression: str) -> str:
    """CEL expression: the value in double quotes, for messages."""
    return f"'\"' + {expression} + '\"'"


def only_one(*fields: str) -> str:
    """CEL expression: exactly one of ``fields`` of ``self`` is set."""
    return f"[{', '.join(f'has(self.{name})' for name in fields)}].exists_one(given, given)"


def found(*fields: str) -> str:
    """CEL expression: ``none`` or ``more than one``; ends a message about :func:`only_one`.

    Not the names: the API server takes every list made in an expression for one without end, and refuses its cost.
    """
    return f"({' || '.join(f'has(self.{name})' for name in fields)} ? 'more than one' : 'none')"
