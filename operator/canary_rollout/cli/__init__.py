"""kubectl canary."""
