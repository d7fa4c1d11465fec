"""Figures the engine's tests have measured, for the end of the test report."""

LINES: list[str] = []
