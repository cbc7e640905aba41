"""From Prometheus to a number of replicas: signals -> decide(now) -> decision."""
