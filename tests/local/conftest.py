"""What the tests of the node share."""

import pytest
from pod_play import SERVER


@pytest.fixture
def pod_images(local_cluster):
    """Images of a web server and of a shell."""
    local_cluster.images["web"] = ["{python}", "-c", SERVER]
    local_cluster.images["sh"] = []
