"""What the tests of the controller share."""

import pytest
import structlog


@pytest.fixture(autouse=True)
def plain_logs():
    """structlog's own choice draws tracebacks with all local variables, which takes seconds where a world is among them."""
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()])
    yield
    structlog.reset_defaults()
