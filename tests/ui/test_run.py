"""A push in Airflow's UI: the summary, after an outage and a retry, and no value of a row."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from pictures import text_of, with_text

PICTURE = Path(__file__).parents[2] / "docs" / "run.png"
DAG = """
    from datetime import timedelta

    from airflow.sdk import DAG

    from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

    with DAG("push_customers", max_active_runs=1):
        UpdateCustomersOperator(
            task_id="push_customers", path={path!r}, max_attempts=1, retries=3, retry_delay=timedelta(seconds=1)
        )
"""


def test_the_picture_of_a_push_in_the_docs_shows_its_summary_and_no_row(page, deployment, sandbox, tmp_path):
    path = tmp_path / "customers.csv"
    path.write_text("id,email\n" + "".join(f"sentinel{row},sentinel{row}@example.com\n" for row in range(1200)))
    sandbox.script("ok", "503")
    run = deployment.trigger(deployment.add_dag("push_customers", DAG.format(path=str(path))))
    assert deployment.wait_for_run(run) == "success"
    page.goto(f"{deployment.url}/dags/{run.dag_id}/runs/{quote(run.run_id)}/tasks/push_customers/xcom")
    page.get_by_role("button", name=re.compile("expand", re.IGNORECASE)).first.click()
    page.get_by_text("resumed_at").first.wait_for()
    shown = page.inner_text("body")
    keys = " ".join(sorted(deployment.xcom(run, "push_customers")))
    assert all(key in shown for key in keys.split())
    assert "1200" in shown
    assert "sentinel" not in shown
    if "UPDATE_PICTURES" in os.environ:
        page.set_viewport_size({"width": 1280, "height": 860})
        PICTURE.write_bytes(with_text(page.screenshot(animations="disabled"), keys))
    assert text_of(PICTURE.read_bytes()) == keys, "the summary has changed: run make pictures, and look at it"
