"""JSON that somebody else wrote."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """What ``text`` says.

    Raises:
        ValueError: it is no JSON, or nested deeper than anything of ours: Python's parser answers that with a
            RecursionError, which a reader that is ready for bad JSON does not expect.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
