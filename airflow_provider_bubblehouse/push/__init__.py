"""
The push: sources → customers → batches → calls → summary, in one direction and constant memory.

Knows nothing of Airflow: what it needs of it is passed in.
"""
