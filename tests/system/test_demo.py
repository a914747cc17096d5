"""`make demo`, of the README: a real Airflow pushes the real file into the sandbox and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "demo.py"],
        env=os.environ | {"TMPDIR": str(folder), "HOME": str(folder)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_the_demo_ends_with_the_summary_of_59_accepted_customers_and_cleans_up(tmp_path):
    demo = start(tmp_path)
    printed, _ = demo.communicate()
    assert demo.returncode == 0, printed
    summary = json.loads(printed.rstrip().splitlines()[-1])
    assert (summary["read"], summary["accepted"]) == (59, 59)
    assert "59 customers are in the sandbox" in printed
    assert list(tmp_path.glob("bubblehouse-demo-*")) == []


def test_the_demo_cleans_up_when_it_is_interrupted(tmp_path):
    demo = start(tmp_path)
    for line in demo.stdout:
        if line.startswith("airflow db migrate"):
            break
    demo.send_signal(signal.SIGINT)
    demo.communicate()
    assert demo.returncode == 130
    assert list(tmp_path.glob("bubblehouse-demo-*")) == []
