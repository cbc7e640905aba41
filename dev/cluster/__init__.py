"""A real Kubernetes for the demo and the tests. It does not know what is deployed on it."""

from dev.cluster.cluster import Cluster
from dev.cluster.errors import ClusterError, CommandError

__all__ = ["Cluster", "ClusterError", "CommandError"]
