"""A service, its pods, its Prometheus and an autoscaler in virtual time, request by request."""
