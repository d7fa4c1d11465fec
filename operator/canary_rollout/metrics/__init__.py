"""Prometheus: presets, one batched query plan per tick, samples. The only room that talks to Prometheus."""
