"""HTTP: requests in, answers out. The only package that knows FastAPI's routes."""
