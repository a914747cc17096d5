"""The command that checks a file before there is a DAG for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from airflow_provider_bubblehouse.__main__ import main

SENTINEL = "sEnTiNeL"
HEADER = "CustomerId,Mail,Joined\n"
MAP = ["--map", "CustomerId=id", "--map", "Mail=email", "--map", "Joined=signed_up_at"]


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Silence the push's own summary, as the command does. Airflow 3.0 logs to the standard output."""
    caplog.set_level("ERROR", logger="airflow_provider_bubblehouse.push.report")


@pytest.fixture
def check(tmp_path, capsys, monkeypatch):
    """Return what checks a CSV of these rows, and returns the exit code and all that was printed."""

    monkeypatch.setenv("COLUMNS", "300")

    def run(rows: str, *arguments: str) -> tuple[int, str]:
        path = tmp_path / "customers.csv"
        path.write_text(HEADER + rows)
        code = main(["check", str(path), *MAP, *arguments])
        return code, "".join(capsys.readouterr()).strip()

    return run


def test_a_file_whose_rows_can_all_be_sent_passes(check):
    assert check("1,a@example.com,2020-01-15T10:30:00Z\n2,,\n") == (0, "All 2 rows can be sent.")


def test_a_file_without_rows_is_said_to_have_none(check):
    assert check("") == (0, "The file has no rows.")


def test_what_is_wrong_is_told_by_reason_number_and_first_rows_and_no_value_is_shown(check):
    code, said = check(f"1,,{SENTINEL}\n,,\n2,{SENTINEL}@example.com,2020-01-15 10:30\n" + f"3,,{SENTINEL}\n" * 30)
    assert code == 1
    assert SENTINEL not in said
    words = " ".join(said.replace("│", " ").split())
    assert "31 signed_up_at must be a time such as" in words
    assert "1 the row has neither id nor email" in words
    assert "row 2 " in words
    assert "rows 1, 4, 5, 6, 7 " in words
    assert words.endswith("Of 33 rows, 32 cannot be sent.")


def test_the_timezone_is_looked_at_as_by_the_operator(check):
    code, said = check("1,,2020-01-15 10:30\n", "--timezone", "Europe/Nowhere")
    assert (code, said) == (1, "timezone must be the name of a time zone such as Europe/Berlin.")


def test_invalid_rows_are_written_where_they_can_be_mended(check, tmp_path):
    code, said = check("1,,\n,,2020-01-15T10:30:00Z\n", "--rejected", str(tmp_path / "rejected"))
    assert code == 1
    assert f"They are in {tmp_path}/rejected." in said
    (line,) = (tmp_path / "rejected" / "2.jsonl").read_text().splitlines()
    assert json.loads(line)["customer"] == {"signed_up_at": "2020-01-15T10:30:00Z"}
    assert main(["check", str(tmp_path / "rejected" / "*.jsonl"), "--format", "rejected"]) == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere.csv", "There is no file"),
        ("unheard-of://bucket/a.csv", "There is no file system for unheard-of://bucket/a.csv"),
        ("*.csv", "No file matches"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_without_a_traceback(tmp_path, monkeypatch, capsys, path, said):
    monkeypatch.chdir(tmp_path)
    assert main(["check", path]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(said)


def test_a_broken_file_is_told_by_its_line(check):
    code, said = check('1,,\n2,"')
    assert code == 1
    assert "line 3: the CSV is broken here" in " ".join(said.split())


@pytest.mark.parametrize("mapping", ["CustomerId", "=id", "CustomerId="])
def test_a_mapping_that_is_none_is_refused(check, capsys, mapping):
    with pytest.raises(SystemExit) as caught:
        check("1,,\n", "--map", mapping)
    assert caught.value.code == 2
    assert "must be COLUMN=FIELD" in capsys.readouterr().err


def test_in_a_terminal_a_bar_shows_how_far_it_is(tmp_path):
    path = tmp_path / "customers.jsonl"
    path.write_text('{"id": "1"}\n' * 100_000)
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "airflow_provider_bubblehouse", "check", str(path)],
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            check=False,
        )
        drawn = os.read(ours, 100_000).decode(errors="replace")
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stdout) == (0, "All 100,000 rows can be sent.\n")
    assert "Checking" in drawn
    assert "━" in drawn
