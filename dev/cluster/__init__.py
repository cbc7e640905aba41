"""A real Kubernetes for the demo and the tests. It does not know what is deployed on it."""

from dev.cluster.cluster import Cluster
from dev.cluster.errors import ClusterError, CommandError
from dev.cluster.tools import recorded_builds

__all__ = ["Cluster", "ClusterError", "CommandError", "recorded_builds"]
