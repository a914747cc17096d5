"""The deployment that the other tests here stand on does what they need of it."""

from __future__ import annotations

SLOW = """
    from airflow.sdk import DAG, task
    from datetime import timedelta

    with DAG("{name}"):

        @task(retries=2, retry_delay=timedelta(seconds=1))
        def wait(ti=None):
            import time

            print("try", ti.try_number)
            if ti.try_number < 3:
                time.sleep(600)
            return ti.try_number

        wait()
"""


def test_a_tasks_process_can_be_killed_while_its_supervisor_lives(deployment):
    run = deployment.trigger(deployment.add_dag("killed", SLOW.format(name="killed")))
    process = deployment.task_process(run, "wait")
    supervisor = process.parent()
    deployment.poll(lambda: "try 1" in deployment.logs(run, "wait").get(1, ""), "the first try has begun")
    process.kill()
    again = deployment.task_process(run, "wait", try_number=2)
    assert again.pid != process.pid
    assert supervisor.is_running()
    again.kill()
    deployment.wait(run, "wait", states={"success"})
    assert [(each.number, each.state) for each in deployment.tries(run, "wait")] == [
        (1, "failed"),
        (2, "failed"),
        (3, "success"),
    ]
    assert deployment.xcom(run, "wait") == 3
    logs = deployment.logs(run, "wait")
    assert list(logs) == [1, 2, 3]
    assert "try 1" in logs[1]
    assert "try 3" in logs[3]


def test_a_running_task_can_be_marked_failed_and_cleared(deployment):
    run = deployment.trigger(deployment.add_dag("marked", SLOW.format(name="marked")))
    process = deployment.task_process(run, "wait")
    deployment.mark(run, "wait", "failed")
    deployment.poll(lambda: not process.is_running(), "the marked task is killed")
    assert deployment.wait_for_run(run) == "failed"
    deployment.clear(run, "wait")
    again = deployment.task_process(run, "wait", try_number=2)
    deployment.clear(run, "wait")
    deployment.wait(run, "wait", states={"success"}, try_number=3)
    assert not again.is_running()
