"""The command that checks a file before there is a DAG for it."""

from __future__ import annotations

import json
import os
import re
import shlex
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
    code, said = check("1,a@example.com,2020-01-15T10:30:00Z\n2,,\n")
    assert (code, said.splitlines()[-1]) == (0, "All 2 rows can be sent.")


def test_a_file_without_rows_is_reported_as_empty(check):
    assert check("") == (0, "The file has no rows.")


def test_invalid_rows_are_reported_by_reason_count_and_first_rows_without_a_value(check):
    code, said = check(f"1,,{SENTINEL}\n,,\n2,{SENTINEL}@example.com,2020-01-15 10:30\n" + f"3,,{SENTINEL}\n" * 30)
    assert code == 1
    assert SENTINEL not in said
    words = " ".join(said.replace("│", " ").split())
    assert "31 signed_up_at must be a time such as" in words
    assert "1 the row has neither id nor email" in words
    assert "row 2 " in words
    assert "rows 1, 4, 5, 6, 7 " in words
    assert words.endswith("Of 33 rows, 32 cannot be sent.")


def test_the_timezone_is_validated_like_that_of_the_operator(check):
    code, said = check("1,,2020-01-15 10:30\n", "--timezone", "Europe/Nowhere")
    assert (code, said) == (1, "timezone must be the name of a time zone such as Europe/Berlin.")


def test_invalid_rows_are_written_to_a_folder_for_correction(check, tmp_path):
    code, said = check("1,,\n,,2020-01-15T10:30:00Z\n", "--rejected", str(tmp_path / "rejected"))
    assert code == 1
    assert f"They are in {tmp_path}/rejected." in said
    (line,) = (tmp_path / "rejected" / "2.jsonl").read_text().splitlines()
    assert json.loads(line)["customer"] == {"signed_up_at": "2020-01-15T10:30:00Z"}
    assert main(["check", str(tmp_path / "rejected" / "*.jsonl"), "--file-format", "rejected"]) == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere.csv", "There is no file"),
        ("unheard-of://bucket/a.csv", "There is no file system for unheard-of://bucket/a.csv"),
        ("*.csv", "No file matches"),
    ],
)
def test_an_unreadable_file_is_reported_without_a_traceback(tmp_path, monkeypatch, capsys, path, said):
    monkeypatch.chdir(tmp_path)
    assert main(["check", path]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(said)


CSV_OPTIONS = [
    ("id;phone", ["1;5", "2;"], ["delimiter=;"]),
    ("id\tphone", ["1\t5", "2\t"], ["delimiter=\\t"]),
    ("id,tags", ["1,NULL", "2,NULL"], ["null_values=NULL"]),
    ("id,tags", ["1,NULL", "2,-"], ["null_values=NULL", "null_values=-"]),
    ("id,tags", ["1,NULL", "2,-"], ['null_values=["NULL", "-"]']),
    ("1,a@example.com", ["2,"], ["column_names=id,email"]),
    ("an export", ["id,email", "1,"], ["skip_rows=1"]),
    ('id;name"', ["1;x", '2;"'], ['{"delimiter": ";", "quote_char": null}']),
    ('id;name"', ["1;x", '2;"'], ["delimiter=;", "quote_char="]),
]


@pytest.mark.parametrize(("header", "rows", "options"), CSV_OPTIONS, ids=str)
def test_a_file_of_another_dialect_is_read_with_its_options(check_csv, header, rows, options):
    code, said = check_csv(header, rows, *(word for option in options for word in ("--csv", option)))
    assert code == 0, said


def test_the_message_about_a_dialect_names_an_option_that_can_be_pasted(check_csv):
    code, said = check_csv("id;email", ["1;"])
    assert code == 1
    option = shlex.split(re.search(r"--csv '{.*}'", said)[0])
    code, said = check_csv("id;email", ["1;"], *option)
    assert code == 0, said


@pytest.mark.parametrize("option", ["delimiter", "=;", "{", "null_values=["])
def test_a_csv_option_that_cannot_be_read_is_refused(check_csv, option):
    with pytest.raises(SystemExit) as caught:
        check_csv("id", ["1"], "--csv", option)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "option",
    [
        "delimiter=;;",
        "separator=;",
        "skip_rows=x",
        "encoding=klingon",
        '{"null_values": "NULL"}',
        '{"null_values": null}',
        "{}",
    ],
)
def test_a_csv_option_that_cannot_work_is_refused_as_by_the_operator(check_csv, option):
    code, said = check_csv("id", ["1"], "--csv", option)
    assert code == (0 if option == "{}" else 1)
    assert said.startswith("csv") or option == "{}"
    code, said = check_csv("id", ["1"], "--csv", "delimiter=;", "--file-format", "jsonl")
    assert (code, said) == (1, "--csv is for CSV files: --file-format must be csv or auto.")


def test_words_for_a_missing_value_in_a_csv_lead_to_its_null_values(check_csv):
    rows = ["1,NULL,31.01.1990", "2,Ada,NULL", "3,Ada,NULL"]
    code, said = check_csv("id,first_name,birthday", rows)
    assert code == 1
    assert "3 values are NULL, which is text. Set csv={'null_values': ['NULL']}" in said
    assert "Set formats={'birthday': '%d.%m.%Y'}" in said
    code, said = check_csv(
        "id,first_name,birthday", rows, "--csv", 'null_values=["NULL"]', "--format", "birthday=%d.%m.%Y"
    )
    assert code == 0
    assert "NULL" not in said


def test_messages_name_the_options_of_the_command(check_csv, tmp_path):
    _, said = check_csv("id;email", ["1;"])
    assert """set --csv '{"delimiter": ";"}'""" in said
    _, said = check_csv("id,email", ["1,"], "--map", "key=id")
    assert "lacks columns that --map names: key." in said
    _, said = check_csv("id,box", ["1,x"], "--map", "id=id", "--map", "box.mail=email")
    assert "email cannot be read: --map reaches into an object" in said
    _, said = check_csv("id,email", ["1,"], "--format", "optin=yes")
    assert said.startswith("--format: optin takes only a dict")
    path = tmp_path / "a.jsonl"
    path.write_text('[{"id": "1"}]')
    command = [sys.executable, "-m", "airflow_provider_bubblehouse", "check", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "set --file-format json." in " ".join(done.stderr.split())
    path.write_text('{"id": "1"}\n')
    done = subprocess.run([*command, "--map", "id=id", "--map", "x=email"], check=False, capture_output=True, text=True)
    assert done.stderr == "--map names columns that no row has: x\n"


def test_words_for_a_missing_value_in_other_files_lead_to_a_format(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "birthday": "NULL"}\n')
    assert main(["check", str(path)]) == 1
    assert """--format 'birthday={"NULL": null}'""" in "".join(capsys.readouterr())


def test_a_broken_file_whose_first_rows_are_invalid_is_still_broken(check):
    code, said = check("1,,x\n" * 100 + '2,"')
    assert code == 1
    assert "line 102: the CSV is broken here" in " ".join(said.split())


def test_a_broken_file_is_reported_by_its_line(check):
    code, said = check('1,,\n2,"')
    assert code == 1
    assert "line 3: the CSV is broken here" in " ".join(said.split())


@pytest.mark.parametrize("mapping", ["CustomerId", "=id", "CustomerId="])
def test_an_invalid_mapping_is_refused(check, capsys, mapping):
    with pytest.raises(SystemExit) as caught:
        check("1,,\n", "--map", mapping)
    assert caught.value.code == 2
    assert "must be COLUMN=FIELD" in capsys.readouterr().err


def words_of(said: str) -> str:
    """Return what was printed without the lines of tables."""
    return " ".join(re.sub("[━│┃┏┓┗┛┡┩└┘─┴┳╇]", " ", said).split())


@pytest.fixture
def check_csv(tmp_path, capsys, monkeypatch):
    """Return what checks a CSV with any header, and returns the exit code and the words that were printed."""
    monkeypatch.setenv("COLUMNS", "300")

    def run(header: str, rows: list[str], *arguments: str) -> tuple[int, str]:
        path = tmp_path / "customers.csv"
        path.write_text("\n".join([header, *rows]) + "\n")
        code = main(["check", str(path), *arguments])
        return code, words_of("".join(capsys.readouterr()))

    return run


def test_the_shapes_of_each_field_are_shown_with_how_many_rows_have_a_value(check_csv):
    rows = [f"{1000 + number},Ada,{number % 2},31.01.1990," for number in range(20)]
    code, said = check_csv("id,first_name,optin,extras,phone", rows, "--map", "id=id", "--map", "first_name=first_name")
    assert code == 0
    assert "id 20 9999 (20)" in said
    assert "first_name 20 Aaa (20)" in said
    assert "optin" not in said
    code, said = check_csv("id,first_name,optin,phone,tier", ["7,Ada,J,,x", "8,Ada,N,,y", "9,Eve,N,,z", "9,Eve,J,,z"])
    assert code == 1
    assert "optin 4 J (2) N (2)" in said
    assert "phone" not in said
    assert "Customer2 has no known field tier. A push sends it unchanged; to rename it, use --map." in said


ADVICE = [
    ("birthday", ["31.01.1990", "1.2.1985"], "birthday=%d.%m.%Y"),
    ("birthday", ["01/31/1990", "02/01/1985"], "birthday=%m/%d/%Y"),
    ("birthday", ["01/02/1990"], "birthday=%d/%m/%Y"),
    ("birthday", ["31.01."], "birthday=%d.%m."),
    ("birthday", ["0000-00-00"], 'birthday={"0000-00-00": null}'),
    ("signed_up_at", ["31.01.2020 10:30"], "signed_up_at=%d.%m.%Y %H:%M"),
    ("signed_up_at", ["Jan 31 2020"], None),
    ("signed_up_at", ["1579084200"], "signed_up_at=epoch"),
    ("signed_up_at", ["1579084200123"], "signed_up_at=epoch_ms"),
    ("email_marketing_consent_change_time", ["31.01.2020"], None),
    ("email_marketing_consent_change_time", ["31.01.2020 10:30"], "email_marketing_consent_change_time=%d.%m.%Y %H:%M"),
    ("tags", ["vip; gold", "vip"], "tags=;"),
    ("tags", ["vip"], "tags=,"),
    ("optin", ["J", "N"], 'optin={"J": true, "N": false}'),
    ("optin", ["maybe"], None),
    ("id", ["0"], 'id={"0": null}'),
    ("total_spent", ["$5"], None),
]


@pytest.mark.parametrize(("field", "values", "fix"), ADVICE, ids=str)
def test_the_format_that_would_help_is_named_and_does_help(check_csv, field, values, fix):
    header, before = ("email,id", "a@example.com") if field == "id" else (f"id,{field}", "7")
    rows = [f'{before},"{value}"' for value in values]
    code, said = check_csv(header, rows)
    assert code == 1
    if fix is None:
        assert "Set" not in said
        return
    assert f"(here: --format '{fix}')" in said
    code, said = check_csv(header, rows, "--format", fix)
    assert code == 0, said


def test_if_two_formats_would_help_both_are_named(check_csv):
    _, said = check_csv("id,birthday", ["1,01/02/1990", "2,03/04/1990"])
    assert "birthday: 2 rows are 99/99/9999. Set formats={'birthday': '%d/%m/%Y'}" in said
    assert "or formats={'birthday': '%m/%d/%Y'}" in said
    assert "look at a value to know which" in said


def test_a_format_that_helps_some_rows_says_how_many(check_csv):
    _, said = check_csv("id,birthday", ["1,31.01.1990", "2,31.02.1990", "3,x", "4,y"])
    assert "birthday: 4 rows are" in said
    assert "Set for 25% of these rows formats={'birthday': '%d.%m.%Y'}" in said


def test_faults_of_all_fields_lead_to_advice_at_once(check_csv):
    _, said = check_csv("id,birthday,tags", ["1,31.01.1990,vip"])
    assert "--format 'birthday=%d.%m.%Y'" in said
    assert "--format 'tags=,'" in said


def test_if_all_rows_are_invalid_the_faults_are_shown_too(check_csv):
    code, said = check_csv("id,birthday", ["1,x", "2,y"])
    assert code == 1
    assert "2 birthday must be a date such as 2026-01-31 rows 1, 2" in said
    assert said.endswith("Of 2 rows, 2 cannot be sent.")


NAMES = ["Ada", "Eve", "Al", "Jo", "J", "N", "O'Neil", "Łu", "sEnTiNeL", "Null", "No", "Ja"]


@pytest.mark.parametrize("field", ["first_name", "last_name", "id", "tags", "Vorname", "optin", "birthday", "extras.a"])
def test_no_name_is_shown_however_short_and_however_often(tmp_path, capsys, monkeypatch, field):
    monkeypatch.setenv("COLUMNS", "300")
    path = tmp_path / "customers.csv"
    path.write_text("email,x\n" + "".join(f"a@example.com,{name}\n" for name in NAMES * 5))
    main(["check", str(path), "--map", "email=email", "--map", f"x={field}"])
    said = words_of("".join(capsys.readouterr()))
    shown = said.partition("Most common shapes")[2].partition("What is wrong")[0].replace(f" {field} ", " ")
    allowed = {"Null"}  # a word for a missing value
    assert {word.strip("().") for word in re.split(r"[ ,]", shown)} & set(NAMES) <= allowed


def test_a_name_of_a_column_that_may_be_a_value_is_not_shown(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "Ada Lovelace": "-", "tags": "vip"}\n' + '{"id": "2", "Ada Lovelace": NaN}\n' * 2)
    assert main(["check", str(path)]) == 1
    said = words_of("".join(capsys.readouterr()))
    assert "Lovelace" not in said
    assert "a field whose name is not a plain word" in said


def test_shapes_that_look_like_markup_are_printed_as_they_are(check_csv):
    code, said = check_csv("id,first_name", ["1,[/bold]", "2,[red]"])
    assert code == 0
    assert "[/aaaa] (1)" in said
    assert "[aaa] (1)" in said


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("jsonl", "the format of the file is --file-format jsonl"),
        ("birthday", "must be FIELD=HOW"),
        ("birthday=", "must be FIELD=HOW"),
        ("optin={", "has JSON that cannot be read"),
    ],
)
def test_a_format_that_cannot_be_read_is_refused(check_csv, capsys, argument, said):
    with pytest.raises(SystemExit) as caught:
        check_csv("id", ["1"], "--format", argument)
    assert caught.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_formats_that_cannot_work_are_refused_as_by_the_operator(check_csv):
    code, said = check_csv("id", ["1"], "--format", "birthday=dd.mm.yyyy")
    assert code == 1
    assert said.startswith("--format: birthday takes a strptime pattern")
    code, said = check_csv("id", ["1"], "--map", "id=id", "--format", "birthday=%d.%m.%Y")
    assert (code, said) == (1, "--format names birthday, which --map does not fill.")


def test_the_command_does_not_import_airflow(tmp_path):
    path = tmp_path / "customers.csv"
    path.write_text("id,birthday\n1,31.01.1990\n")
    code = (
        "import sys; from airflow_provider_bubblehouse.__main__ import main;"
        f"code = main(['check', {str(path)!r}, '--format', 'birthday=%d.%m.%Y']);"
        "assert 'airflow' not in sys.modules; sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


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
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "All 100,000 rows can be sent.")
    assert "Checking" in drawn
    assert "━" in drawn
