"""Shards on a cluster: CeleryExecutor with a worker, Redis and PostgreSQL. A worker process is killed mid-push."""

from __future__ import annotations

import json

import pytest
from deployment import Deployment
from servers import running_postgres, running_redis

SHARDS, CUSTOMERS = 2, 8_000
ROWS = 2 * CUSTOMERS  # of a shard: each customer is updated twice
BATCH, LANES = 100, 2
DELAY = 0.1  # seconds an answer takes, so that a push lasts for some seconds

DAG = """
    from datetime import timedelta

    from airflow.sdk import DAG

    from airflow_provider_bubblehouse.operators.customers import UpdateCustomersOperator

    with DAG("shards", max_active_runs=1):
        UpdateCustomersOperator.partial(
            task_id="push",
            pool="bubblehouse",
            batch_size={batch},
            in_flight={lanes},
            retries=3,
            retry_delay=timedelta(seconds=1),
        ).expand(path={paths!r})
"""


@pytest.fixture
def cluster(running_sandbox, tmp_path_factory):
    pytest.importorskip("airflow.providers.celery")
    environment = {"AIRFLOW_CONN_BUBBLEHOUSE_DEFAULT": running_sandbox.connection()}
    with running_postgres() as postgres, running_redis() as broker:
        database = f"postgresql+psycopg2://shop@/postgres?host={postgres}"
        home = tmp_path_factory.mktemp("cluster")
        with Deployment(home, environment, database=database, broker=broker) as running:
            yield running


def write_shard(path, shard: int) -> None:
    versions = ("old", "new")
    rows = ({"id": f"{shard}-{n}", "first_name": version} for version in versions for n in range(CUSTOMERS))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_shards_survive_the_loss_of_a_worker_process_and_its_orphan_stops(cluster, sandbox, tmp_path):
    paths = [tmp_path / f"{shard}.jsonl" for shard in range(SHARDS)]
    for shard, path in enumerate(paths):
        write_shard(path, shard)
    cluster.api("POST", "/pools", json={"name": "bubblehouse", "slots": SHARDS})
    sandbox.rates({f"delay={DELAY}": 1.0})
    source = DAG.format(batch=BATCH, lanes=LANES, paths=[str(path) for path in paths])
    run = cluster.trigger(cluster.add_dag("shards", source))

    task = cluster.task_process(run, "push", map_index=0)
    cluster.poll(lambda: rows_sent(sandbox, shard=0) > ROWS // 5, "a fifth of the shard is pushed")
    pool_process = task.parent()
    assert pool_process.ppid() == cluster.component("worker").pid
    pool_process.kill()

    assert cluster.wait_for_run(run) == "success"
    names = {customer["id"]: customer["first_name"] for customer in sandbox.customers()}
    assert names == {f"{shard}-{n}": "new" for shard in range(SHARDS) for n in range(CUSTOMERS)}
    tries = [len(cluster.tries(run, "push", map_index=shard)) for shard in range(SHARDS)]
    assert tries == [2, 1]
    sent_again = [rows_sent(sandbox, shard) - ROWS for shard in range(SHARDS)]
    fastest = LANES * BATCH / DELAY  # rows a second
    under_way = LANES * BATCH
    assert sent_again[0] <= under_way + 2 * fastest
    assert sent_again[1] == 0


def rows_sent(sandbox, shard: int) -> int:
    """Return how many rows of a shard the API has processed."""
    calls = [call for call in sandbox.calls if call.processed]
    return sum(call.rows for call in calls if call.customers[0]["id"].startswith(f"{shard}-"))
