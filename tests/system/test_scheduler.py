"""DAGs under a real scheduler: the examples, shards with a pool, and what Airflow keeps of a customer or a token."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from airflow_provider_bubblehouse.hooks.bubblehouse import BubblehouseHook

EXAMPLES = Path(__file__).parents[2] / "dags_examples"

# How many customers, deleted ones included, an example leaves in an empty sandbox.
CUSTOMERS_AFTER = {
    "call_with_http_operator": 0,
    "delete_after_approval": 2,
    "delete_customers": 2,
    "push_changed_customers": 59,
    "push_customers_from_file": 59,
    "push_customers_from_many_files": 59,
    "push_customers_from_sql": 4,
    "push_customers_from_xcom": 2,
    "push_customers_in_shards": 59,
    "push_customers_with_decorator": 2,
    "retry_policy": 0,
    "send_alerts": 59,
    "wait_for_customers": 3,
}


@pytest.fixture(scope="module")
def pool(deployment):
    deployment.api("POST", "/pools", json={"name": "bubblehouse", "slots": 2})


@pytest.fixture(scope="module")
def examples(deployment, pool, running_sandbox, chinook_database):
    deployment.create_connection(
        "bubblehouse_http", conn_type="http", host=running_sandbox.url, password=running_sandbox.token
    )
    deployment.create_connection("shop_database", conn_type="sqlite", host=chinook_database)
    folder = deployment.dags / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    calling = folder / "call_with_http_operator.py"  # it has the shop in its URL
    calling.write_text(calling.read_text().replace("my-shop", running_sandbox.shop))


@pytest.mark.parametrize("example", sorted(file.stem for file in EXAMPLES.glob("*.py")))
def test_an_example_runs_to_its_end(deployment, examples, sandbox, example):
    deployment.wait_for_dag(example)
    run = deployment.trigger(example)
    try:
        if example == "delete_after_approval":
            deployment.answer(run, "approve_deletion", "Approve")
        assert deployment.wait_for_run(run) == "success"
        assert len(sandbox.customers()) == CUSTOMERS_AFTER[example]
    finally:
        deployment.pause(example)  # its schedule would go on


SHARDS = """
    from datetime import timedelta

    from airflow.sdk import DAG

    from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

    with DAG("shards", max_active_runs=1):
        UpdateCustomersOperator.partial(
            task_id="push", pool="bubblehouse", batch_size=2, retries=3, retry_delay=timedelta(seconds=1)
        ).expand(path={paths!r})
"""


def test_shards_are_pushed_side_by_side_as_far_as_the_pool_lets_them(deployment, pool, sandbox, tmp_path):
    paths = []
    for shard in range(4):
        path = tmp_path / f"{shard}.jsonl"
        path.write_text("".join(json.dumps({"id": f"{shard}-{row}"}) + "\n" for row in range(3)))
        paths.append(str(path))
    sandbox.rates({"delay=1": 1.0})
    sandbox.script("503", "503")
    run = deployment.trigger(deployment.add_dag("shards", SHARDS.format(paths=paths)))
    assert deployment.wait_for_run(run) == "success"
    assert sorted(customer["id"] for customer in sandbox.customers()) == sorted(
        f"{shard}-{row}" for shard in range(4) for row in range(3)
    )
    summaries = [deployment.xcom(run, "push", map_index=shard) for shard in range(4)]
    assert [summary["accepted"] for summary in summaries] == [3, 3, 3, 3]
    assert sum(summary["retries"] for summary in summaries) == 2
    tasks = [deployment.task(run, "push", map_index=shard) for shard in range(4)]
    moments = sorted(moment for task in tasks for moment in ((task["start_date"], 1), (task["end_date"], -1)))
    running = [sum(step for _, step in moments[: position + 1]) for position in range(len(moments))]
    assert max(running) == 2


CUSTOMER = {
    "id": "sentinel-id",
    "email": "sentinel@example.com",
    "phone": "+15550001122",
    "first_name": "Sentinelle",
    "extras": {"note": "sentinel-note"},
}

PRIVATE = """
    import json
    from datetime import timedelta

    from airflow.sdk import DAG, Param, task

    from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

    # Which file comes with the run: the text of a DAG file is stored, and is to hold no customer.
    defaults = {"max_attempts": 1, "retries": 1, "retry_delay": timedelta(0)}
    with DAG("private", default_args=defaults, params={"path": Param("", type="string")}):

        @task(show_return_value_in_logs=False)
        def extract(params=None):
            with open(params["path"]) as file:
                return [json.loads(line) for line in file]

        @task(show_return_value_in_logs=False)
        def shard(customers):
            return [customers, customers]

        customers = extract()
        UpdateCustomersOperator(task_id="push_list", customers=customers)
        UpdateCustomersOperator(
            task_id="push_text", customers="{{ ti.xcom_pull(task_ids='extract') | tojson }}"
        ).set_upstream(customers)
        UpdateCustomersOperator.partial(task_id="push_mapped").expand(customers=shard(customers))
        UpdateCustomersOperator(task_id="push_file", path="{{ params.path }}", bubblehouse_conn_id="private_token")
        UpdateCustomersOperator(
            task_id="push_minted", path="{{ params.path }}", on_invalid="skip", bubblehouse_conn_id="private_secret"
        )
"""
NOT_OURS = ("extract", "shard")  # what the user's own tasks take and return, Airflow keeps

REFUSAL = f"400:invalid_data,message=row 1 {CUSTOMER['email']} ({CUSTOMER['first_name']}, {CUSTOMER['phone']}) is odd"


@pytest.fixture(scope="module")
def private_dag(deployment, running_sandbox):
    deployment.create_connection(
        "private_token", host=running_sandbox.url, login=running_sandbox.shop, password=running_sandbox.token
    )
    deployment.create_connection(
        "private_secret",
        host=running_sandbox.url,
        login=running_sandbox.shop,
        extra={"key_id": running_sandbox.key_id, "shared_secret": running_sandbox.shared_secret},
    )
    return deployment.add_dag("private", PRIVATE)


@pytest.mark.parametrize(
    ("rates", "row", "state", "tries"),
    [
        pytest.param({}, {}, "success", 1, id="accepted"),
        pytest.param({REFUSAL: 1.0}, {}, "failed", 1, id="rejected"),
        pytest.param({"503": 1.0}, {}, "failed", 2, id="no answer"),
        pytest.param({}, {"deleted": "sentinel-note"}, "failed", 1, id="invalid"),
    ],
)
def test_airflow_keeps_no_customer_and_no_token(deployment, private_dag, sandbox, tmp_path, rates, row, state, tries):
    path = tmp_path / "customers.jsonl"
    path.write_text(json.dumps(CUSTOMER | row) + "\n")
    sandbox.rates(rates)
    run = deployment.trigger(private_dag, conf={"path": str(path)})
    assert deployment.wait_for_run(run) == state
    for task_id in ("push_list", "push_text", "push_file"):
        assert [each.state for each in deployment.tries(run, task_id)][-1] == state
        assert len(deployment.tries(run, task_id)) == tries
        assert deployment.logs(run, task_id)[tries]

    sentinels = re.compile(
        "|".join(
            [
                "sentinel",
                re.escape(CUSTOMER["phone"]),
                re.escape(sandbox.token),
                re.escape(sandbox.shared_secret),
                r"eyJ[\w-]{10,}\.eyJ",  # any token of this kind, as those that were made of the secret
            ]
        ),
        re.IGNORECASE,
    )
    assert sentinels.search(json.dumps(deployment.xcom(run, "extract")))
    shown = deployment.api("GET", f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances")["task_instances"]
    pushes = [task for task in shown if task["task_id"] not in NOT_OURS]
    assert len(pushes) == 6
    assert not [task["task_id"] for task in pushes if sentinels.search(json.dumps(task))]
    assert not [file for file in deployment.log_files() if sentinels.search(file.read_text(errors="replace"))]
    assert not [table for table, text in stored_rows(deployment) if sentinels.search(text)]


DEFERRED = """
    import json

    from airflow.sdk import DAG, Param, task

    from airflow_provider_bubblehouse.sensors.bubblehouse import BubblehouseCustomerSensor

    with DAG("deferred", params={"path": Param("", type="string")}):

        @task(multiple_outputs=True, show_return_value_in_logs=False)
        def extract(params=None):
            with open(params["path"]) as file:
                customer = json.load(file)
            return {"identity": {"email": customer["email"]}, "expected": customer}

        customer = extract()
        BubblehouseCustomerSensor(
            task_id="wait",
            identity=customer["identity"],
            expected=customer["expected"],
            poke_interval=1,
            deferrable=True,
            bubblehouse_conn_id="private_token",
        )
"""


def test_airflow_keeps_no_customer_that_a_deferred_sensor_waits_for(deployment, private_dag, sandbox, tmp_path):
    path = tmp_path / "customer.json"
    path.write_text(json.dumps(CUSTOMER))
    run = deployment.trigger(deployment.add_dag("deferred", DEFERRED), conf={"path": str(path)})
    deployment.wait(run, "wait", states={"deferred"})
    assert deployment.query("SELECT count(*) FROM trigger") == [(1,)]
    assert not [table for table, text in stored_rows(deployment) if "sentinel" in text.lower()]
    BubblehouseHook().update_customers([CUSTOMER])
    assert deployment.wait_for_run(run) == "success"
    assert not [file for file in deployment.log_files() if "sentinel" in file.read_text(errors="replace").lower()]


def stored_rows(deployment):
    """Return every row of every table in Airflow's database but what it keeps of the user's own tasks."""
    for (table,) in deployment.query("SELECT name FROM sqlite_master WHERE type = 'table'"):
        where = f" WHERE task_id NOT IN {NOT_OURS}" if table in ("xcom", "rendered_task_instance_fields") else ""
        for row in deployment.query(f"SELECT * FROM {table}{where}"):
            yield (
                table,
                " ".join(part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in row),
            )


TEMPLATE = "{{ conn.bubblehouse_default.password }}"

TEMPLATES = """
    import json

    from airflow.sdk import DAG, task

    from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator
    from airflow_provider_bubblehouse.sensors.bubblehouse import BubblehouseCustomerSensor

    def row(name):
        return {"id": name, "first_name": "{{ conn.bubblehouse_default.password }}"}

    with DAG("templates") as dag:

        @task
        def extract():
            return [{"rows": [row("function")]}]

        @task
        def extract_text():
            return [{"customers": json.dumps([row("text")])}]

        @task
        def sample():
            return [{"identity": {"shop_id": name}, "expected": row(name)} for name in ("function", "text")]

        @task.bubblehouse_customers
        def push(rows, run):
            return [dict(one, last_name=run) for one in rows]

        pushed = [
            push.partial(run="{{ dag.dag_id }}").expand_kwargs(extract()),
            UpdateCustomersOperator.partial(task_id="push_text").expand_kwargs(extract_text()),
        ]
        pushed >> BubblehouseCustomerSensor.partial(task_id="wait", timeout=30, poke_interval=1).expand_kwargs(sample())
"""


def test_a_customer_named_like_a_template_is_sent_no_token(deployment, sandbox):
    run = deployment.trigger(deployment.add_dag("templates", TEMPLATES))
    assert deployment.wait_for_run(run) == "success"
    pushed = [customer for call in sandbox.calls for customer in call.customers]
    assert sandbox.token not in json.dumps(pushed)
    assert sorted(pushed, key=lambda customer: customer["id"]) == [
        {"id": "function", "first_name": TEMPLATE, "last_name": "templates"},
        {"id": "text", "first_name": TEMPLATE},
    ]
