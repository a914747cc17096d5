"""The Bubblehouse HTTP API: where it is, how to authenticate, one call, one customer. Knows nothing of Airflow."""
