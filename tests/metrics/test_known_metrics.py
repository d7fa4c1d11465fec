"""The yardstick itself."""

import pytest
from known_metrics import quantile


def test_quantiles_are_interpolated_inside_their_bucket_as_prometheus_documents_it():
    assert quantile(0.5, (0.5, 0.5, 0, 0, 0, 0)) == pytest.approx(0.05)
    assert quantile(0.75, (0.5, 0.5, 0, 0, 0, 0)) == pytest.approx(0.075)
    assert quantile(0.99, (0.5, 0.4, 0, 0, 0, 0.1)) == pytest.approx(1.0)
