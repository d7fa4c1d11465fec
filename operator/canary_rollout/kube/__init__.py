"""Thin access to the Kubernetes API with plain dicts: protocol, client, cache, watch."""
