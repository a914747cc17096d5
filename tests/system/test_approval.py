"""A deletion that somebody approves first, under a real scheduler: the example, with both answers and a late change."""

from __future__ import annotations

from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "dags_examples" / "delete_after_approval.py"
ROWS = '[{"id": "1001"}, {"email": "grace@example.com"}]'
# What reads the rows of a file instead of the ones in the example, so that they can change between the tasks.
FROM_FILE = "[{{'id': line}} for line in open({path!r}).read().split()]"


@pytest.fixture
def start(deployment, request, sandbox, tmp_path):
    """Return what starts a run of the example with other rows; its DAG is named after the test."""

    def start_run(ids: str):
        (tmp_path / "ids").write_text(ids)
        name = request.node.name.replace("[", "_").replace("]", "")
        source = EXAMPLE.read_text().replace('"delete_after_approval"', repr(name))
        source = source.replace(ROWS, FROM_FILE.format(path=str(tmp_path / "ids")))
        return deployment.trigger(deployment.add_dag(name, source))

    return start_run


def test_what_was_approved_is_deleted(deployment, sandbox, start):
    run = start("1 2 3")
    assert deployment.answer(run, "approve_deletion", "Approve") == "Delete 3 customers from Bubblehouse?"
    assert sandbox.calls == []
    assert deployment.wait_for_run(run) == "success"
    assert [(customer["id"], customer["deleted"]) for customer in sandbox.customers()] == [
        (number, True) for number in "123"
    ]


def test_what_was_rejected_is_not_deleted(deployment, sandbox, start):
    run = start("1 2 3")
    deployment.answer(run, "approve_deletion", "Reject")
    assert deployment.wait_for_run(run) == "success"
    assert deployment.task(run, "delete_customers")["state"] == "skipped"
    assert sandbox.calls == []


def test_more_customers_than_were_approved_are_not_deleted(deployment, sandbox, start, tmp_path):
    run = start("1 2 3")
    deployment.wait(run, "approve_deletion", states={"awaiting_input", "deferred"})
    (tmp_path / "ids").write_text("1 2 3 4")
    deployment.clear(run, "list_customers_to_forget")
    deployment.wait(run, "list_customers_to_forget", try_number=2)
    deployment.answer(run, "approve_deletion", "Approve")
    assert deployment.wait_for_run(run) == "failed"
    assert len(deployment.tries(run, "delete_customers")) == 1
    assert "max_customers" in deployment.logs(run, "delete_customers")[1]
    assert sandbox.calls == []
