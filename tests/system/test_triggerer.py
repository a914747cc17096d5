"""Sensors that wait in the triggerer, on every Airflow 3. There the connection comes from Airflow's supervisor."""

from __future__ import annotations

import json

from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook

CUSTOMERS = [str(number) for number in range(1, 7)]
DAG = f"""
    from airflow.sdk import DAG
    from airflow_provider_bubblehouse.sensors.bubblehouse import BubblehouseCustomerSensor

    with DAG("wait_together"):
        for customer in {CUSTOMERS}:
            BubblehouseCustomerSensor(
                task_id=f"wait_{{customer}}",
                bubblehouse_conn_id="stored_in_airflow",
                identity={{"shop_id": customer}},
                deferrable=True,
                poke_interval=1,
            )
"""


def test_sensors_wait_together_in_one_triggerer_and_all_succeed(deployment, sandbox):
    """The triggerer of Airflow 3.0 and 3.1 ends if a trigger waits for Airflow in a plain thread."""
    minted = {"key_id": sandbox.key_id, "shared_secret": sandbox.shared_secret}
    stored = json.loads(sandbox.connection(password=None, extra=minted))
    deployment.create_connection("stored_in_airflow", **stored)
    run = deployment.trigger(deployment.add_dag("wait_together", DAG))
    # Each sensor looks once in the worker. After that the triggerer has looked several times.
    deployment.poll(lambda: len(sandbox.calls) >= 5 * len(CUSTOMERS), "the triggerer looks", timeout=120)
    BubblehouseHook().update_customers([{"id": customer} for customer in CUSTOMERS])
    assert deployment.wait_for_run(run) == "success"
    assert {len(deployment.tries(run, f"wait_{customer}")) for customer in CUSTOMERS} == {1}
