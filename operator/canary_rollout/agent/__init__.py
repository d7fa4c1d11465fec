"""The nginx sidecar: ConfigMap to weights, confirmed by read-back."""
