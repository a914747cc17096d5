"""`make demo`, of the README: a real Airflow pushes the real file into the sandbox and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INTERRUPTED = "The demo was interrupted; everything that it started is stopped and deleted."


def start(folder: Path, **kwargs) -> subprocess.Popen:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "demo.py"],
        env=kept | {"TMPDIR": str(folder), "HOME": os.devnull, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **kwargs,
    )


def ignore_sigint() -> None:
    """As a shell script does with a job that it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def wait_for_line(demo: subprocess.Popen, part: str) -> None:
    for line in demo.stdout:
        if part in line:
            return
    pytest.fail(f"the demo did not print {part!r}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def printed(folder) -> list[str]:
    """What a demo prints that is not interrupted."""
    demo = start(folder)
    output, _ = demo.communicate()
    assert demo.returncode == 0, output
    return output.splitlines()


def test_the_demo_ends_with_the_summary_of_59_accepted_customers(printed):
    summary = json.loads(printed[-1])
    assert (summary["read"], summary["accepted"]) == (59, 59)
    assert "59 customers arrived in the sandbox:" in printed


def test_the_demo_needs_no_home_and_leaves_nothing_behind(printed, folder):
    assert list(folder.iterdir()) == []


def test_the_demo_says_what_it_does_without_airflows_own_output(printed):
    steps = [line for line in printed if line[:2] in ("1.", "2.", "3.")]
    assert ["sandbox" in steps[0], "airflow db migrate" in steps[1], "airflow dags test" in steps[2]] == [True] * 3
    assert len(printed) < 20
    assert "[info" not in "".join(printed)


@pytest.mark.parametrize("step", ["airflow db migrate", "airflow dags test"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_cleans_up_and_ends_with_one_line(tmp_path, step, number, code):
    demo = start(tmp_path, preexec_fn=ignore_sigint)
    wait_for_line(demo, step)
    demo.send_signal(number)
    rest, _ = demo.communicate()
    assert demo.returncode == code
    assert rest.splitlines()[-1:] == [INTERRUPTED]
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
