"""The Bubblehouse HTTP API: its address, tokens, single calls and the reading of a customer. Imports no Airflow."""
