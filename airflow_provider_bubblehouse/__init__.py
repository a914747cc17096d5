"""Airflow provider for Bubblehouse: push customers to a loyalty program."""

__version__ = "0.1.0"
