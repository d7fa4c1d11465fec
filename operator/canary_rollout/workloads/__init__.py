"""What stable and canary are made of: Deployments, Services, pods, promotion."""
