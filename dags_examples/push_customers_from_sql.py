"""Push the rows of a query to Bubblehouse, once a day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG

from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

with DAG(
    dag_id="push_customers_from_sql",
    description="Push the rows of a query to Bubblehouse",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={"country": "Germany"},
    tags=["bubblehouse"],
):
    UpdateCustomersOperator(
        task_id="push_customers",
        # An Airflow connection to any SQL database; here SQLite with the Chinook sample database.
        sql_conn_id="shop_database",
        # With ORDER BY, a retry can continue after the completed rows.
        sql="""
            SELECT
                CustomerId AS id,
                Email AS email,
                FirstName AS first_name,
                LastName AS last_name
            FROM Customer
            WHERE Country = :country
            ORDER BY CustomerId
        """,
        # Placeholders are those of the driver: :country for SQLite, %(country)s for PostgreSQL.
        sql_parameters={"country": "{{ params.country }}"},
        retries=3,
        retry_delay=timedelta(minutes=2),
    )
