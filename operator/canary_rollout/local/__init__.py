"""A Kubernetes on this machine, without containers and without root.

A real etcd, kube-apiserver and kube-controller-manager (one Go binary, built once), a node whose pods are local
processes, ClusterIP services and a Prometheus with Kubernetes discovery. For the demo and the end-to-end tests;
the operator never imports it. Entry points: :class:`canary_rollout.local.cluster.LocalCluster` and
``python -m canary_rollout.local up``.
"""
