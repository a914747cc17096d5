"""A throw-away Airflow 3, its components processes of their own, and a plain face over its REST API and files."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from base64 import urlsafe_b64encode
from contextlib import closing, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psutil
import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path
    from types import TracebackType

ADDRESS = "127.0.0.1"
FINAL_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_POLL = 0.1  # seconds between looks at what is waited for
_START = 120  # seconds; it takes 12 on an idle machine
_STOP = 10  # seconds for a component to end by itself


class Run(NamedTuple):
    """A run of a DAG."""

    dag_id: str
    run_id: str


class Try(NamedTuple):
    """What became of one try of a task."""

    number: int
    state: str | None
    duration: float | None


class Deployment:
    """
    A scheduler, a DAG processor, a triggerer and an API server; a context manager.

    Everybody is an admin, nothing listens elsewhere than on 127.0.0.1, and heartbeats are short.

    :param home: an empty folder.
    :param environment: more environment variables for all of its processes.
    :param database: the URL of an empty database; without it, an SQLite file.
    :param broker: the URL of a broker for CeleryExecutor and a worker; without it, the executor is LocalExecutor.
    """

    def __init__(
        self,
        home: Path,
        environment: Mapping[str, str] | None = None,
        *,
        database: str | None = None,
        broker: str | None = None,
    ) -> None:
        self.home = home
        self.dags = home / "dags"
        self.database = database or f"sqlite:///{home / 'airflow.db'}"
        port = free_port()
        self.url = f"http://{ADDRESS}:{port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        settings = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": ADDRESS,
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor" if broker else "LocalExecutor",
            "AIRFLOW__CORE__FERNET_KEY": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",  # as many worker processes are started, by default 32
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",  # only what is new or has changed
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "1",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database,
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",  # a task without supervisor fails after it
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        # Their servers of logs would listen on all addresses.
        self._commands = {
            "api-server": ["api-server"],
            "scheduler": ["scheduler", "--skip-serve-logs"],
            "dag-processor": ["dag-processor"],
            "triggerer": ["triggerer", "--skip-serve-logs"],
        }
        if broker:
            settings |= {
                "AIRFLOW__CELERY__BROKER_URL": broker,
                "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{self.database}",
            }
            self._commands["worker"] = ["celery", "worker", "--skip-serve-logs", "--concurrency=2"]
        self.environment = kept | settings | dict(environment or {})
        self._components: dict[str, subprocess.Popen[bytes]] = {}
        self._tasks: list[psutil.Process] = []
        self._session = requests.Session()

    def __enter__(self) -> Self:
        """
        Start, and wait until all components are healthy.

        :raises RuntimeError: if one ends instead; with the last lines of what it printed.
        """
        self.dags.mkdir(parents=True)
        made = subprocess.run(
            [sys.executable, "-c", "from airflow.utils.db import initdb; initdb()"],
            env=self.environment,
            capture_output=True,
            check=False,
            text=True,
        )
        if made.returncode:
            raise RuntimeError(f"No database could be made:\n{made.stderr}")
        try:
            for name, command in self._commands.items():
                with (self.home / f"{name}.out").open("wb") as output:
                    self._components[name] = subprocess.Popen(
                        [sys.executable, "-m", "airflow", *command],
                        env=self.environment,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
            self.poll(self._healthy, "all components are healthy", timeout=_START)
            token = self._session.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
            self._session.headers["Authorization"] = f"Bearer {token}"  # Airflow 3.1 asks admins for one, too
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    # DAGs and connections

    def add_dag(self, name: str, source: str) -> str:
        """
        Write a DAG file and wait until it is parsed.

        :param name: the name of the file, without suffix, and the id of a DAG in it.
        :param source: its text; common indentation is taken off.
        :return: the id of the DAG.
        :raises AssertionError: if it cannot be imported.
        """
        written = time.time()
        (self.dags / f"{name}.py").write_text(textwrap.dedent(source))
        self.wait_for_dag(name, since=written)
        return name

    def wait_for_dag(self, dag_id: str, *, since: float = 0.0) -> dict[str, Any]:
        """
        Wait until a DAG is parsed.

        :param dag_id: its id, and the name of its file.
        :param since: the time (Unix) after which it has to be.
        :raises AssertionError: if its file cannot be imported.
        """

        def parsed() -> dict[str, Any] | None:
            for error in self.api("GET", "/importErrors")["import_errors"]:
                if error["filename"].endswith(f"{dag_id}.py") and _unix(error["timestamp"]) > since:
                    raise AssertionError(error["stack_trace"])
            answer = self._send("GET", f"/dags/{dag_id}")
            if answer.status_code == 404:
                return None
            dag: dict[str, Any] = answer.json()
            return dag if _unix(dag["last_parsed_time"]) > since else None

        return self.poll(parsed, f"{dag_id} is parsed")

    def create_connection(self, conn_id: str, **fields: Any) -> None:
        """Store a connection of type ``bubblehouse``; ``extra`` may be a dict."""
        if isinstance(fields.get("extra"), dict):
            fields["extra"] = json.dumps(fields["extra"])
        self.api("POST", "/connections", json={"connection_id": conn_id, "conn_type": "bubblehouse"} | fields)

    def delete_connection(self, conn_id: str) -> None:
        """Delete a stored connection."""
        self.api("DELETE", f"/connections/{conn_id}")

    # Runs and tasks

    def trigger(self, dag_id: str, *, conf: Mapping[str, Any] | None = None) -> Run:
        """Unpause a DAG and start a run of it."""
        self.api("PATCH", f"/dags/{dag_id}", json={"is_paused": False})
        run = self.api("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": dict(conf or {})})
        return Run(dag_id, run["dag_run_id"])

    def pause(self, dag_id: str) -> None:
        """Let a DAG's schedule start no more runs."""
        self.api("PATCH", f"/dags/{dag_id}", json={"is_paused": True})

    def wait_for_run(self, run: Run, *, timeout: float = 120) -> str:
        """Wait until a run has ended, and return its state."""

        def ended() -> str | None:
            state: str = self.api("GET", f"/dags/{run.dag_id}/dagRuns/{run.run_id}")["state"]
            return state if state in FINAL_STATES else None

        return self.poll(ended, f"{run.dag_id} has ended", timeout=timeout)

    def wait(
        self,
        run: Run,
        task_id: str,
        *,
        states: Collection[str] = FINAL_STATES,
        try_number: int = 0,
        map_index: int = -1,
        timeout: float = 120,
    ) -> dict[str, Any]:
        """
        Wait until a task is in one of some states, and return it as REST has it.

        :param states: the states; one that lasts for less than a tenth of a second may be missed.
        :param try_number: the first try that counts.
        :raises AssertionError: if it ends in another state.
        """

        def arrived() -> dict[str, Any] | None:
            task = self.task(run, task_id, map_index=map_index)
            if task is None or task["try_number"] < try_number:
                return None
            if task["state"] in states:
                return task
            if task["state"] in FINAL_STATES:
                text = "\n".join(self.logs(run, task_id, map_index=map_index).values())
                raise AssertionError(f"{task_id} ended as {task['state']}, not as {sorted(states)}:\n{text[-4000:]}")
            return None

        return self.poll(arrived, f"{task_id} is one of {sorted(states)}", timeout=timeout)

    def task(self, run: Run, task_id: str, *, map_index: int = -1) -> dict[str, Any] | None:
        """Return a task as REST has it, with ``state``, ``try_number``, ``rendered_fields``; None before it is."""
        answer = self._send("GET", self._task_path(run, task_id, map_index))
        return None if answer.status_code == 404 else _checked(answer)

    def tries(self, run: Run, task_id: str, *, map_index: int = -1) -> list[Try]:
        """Return a task's tries, first to last."""
        tries = self.api("GET", f"{self._task_path(run, task_id, map_index)}/tries")["task_instances"]
        return sorted(Try(each["try_number"], each["state"], each["duration"]) for each in tries)

    def mark(self, run: Run, task_id: str, state: str, *, map_index: int = -1) -> None:
        """Set a task's state by hand: ``failed``, ``success`` or ``skipped``."""
        self.api("PATCH", self._task_path(run, task_id, map_index), json={"new_state": state})

    def clear(self, run: Run, task_id: str) -> None:
        """Clear a task, running or ended, so that it starts anew."""
        self.api(
            "POST",
            f"/dags/{run.dag_id}/clearTaskInstances",
            json={"dry_run": False, "dag_run_id": run.run_id, "task_ids": [task_id], "only_failed": False},
        )

    def answer(self, run: Run, task_id: str, option: str) -> str:
        """Wait until a task asks a person, choose an option, and return the question."""
        self.wait(run, task_id, states={"awaiting_input", "deferred"})
        # Airflow fails a task that continues before the scheduler has read that its first process ended.
        ended = f"task_id='{task_id}', run_id='{run.run_id}'"
        self.poll(
            lambda: any("Received executor event" in line and ended in line for line in self._scheduler_lines()),
            f"the scheduler has read that {task_id} waits",
        )
        path = f"{self._task_path(run, task_id, -1)}/-1/hitlDetails"
        question: str = self.api("GET", path)["subject"]
        self.api("PATCH", path, json={"chosen_options": [option], "params_input": {}})
        return question

    def task_process(self, run: Run, task_id: str, *, try_number: int = 0, map_index: int = -1) -> psutil.Process:
        """
        Wait until a task runs, and return its own process; that process's ``parent()`` is its supervisor.

        A supervisor is a worker of the executor at the same time, and takes the next task when this one has ended.
        """
        components = {component.pid for component in self._components.values()}

        def running() -> psutil.Process | None:
            task = self.wait(run, task_id, states={"running"}, try_number=try_number, map_index=map_index)
            try:
                process = psutil.Process(task["pid"])
                ours = any(parent.pid in components for parent in process.parents())
            except (TypeError, psutil.NoSuchProcess):  # it runs, but not yet, or no longer, in this process
                return None
            return process if ours else None

        process: psutil.Process = self.poll(running, f"{task_id} has a process")
        self._tasks.append(process)
        return process

    def component(self, name: str) -> psutil.Process:
        """Return the process of a component: ``scheduler``, ``worker`` and so on."""
        return psutil.Process(self._components[name].pid)

    # What is left behind

    def logs(self, run: Run, task_id: str, *, map_index: int = -1) -> dict[int, str]:
        """Return the text of a task's log files by try: what its workers have logged, and not the triggerer."""
        folder = self.home / "logs" / f"dag_id={run.dag_id}" / f"run_id={run.run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        stems = {file.stem.removeprefix("attempt="): file for file in folder.glob("attempt=*.log")}
        files = {int(stem): file for stem, file in stems.items() if stem.isdecimal()}  # not 1.log.trigger.2
        return {number: files[number].read_text() for number in sorted(files)}

    def log_files(self) -> list[Path]:
        """Return all log files: of tasks, of the parsing of DAGs, and what the components have printed."""
        return [file for file in [*self.home.glob("*.out"), *(self.home / "logs").rglob("*")] if file.is_file()]

    def xcom(self, run: Run, task_id: str, *, key: str = "return_value", map_index: int = -1) -> Any:
        """Return what a task gave to XCom."""
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.api("GET", path, params={"map_index": map_index, "deserialize": True})["value"]

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Ask Airflow's own database, if it is SQLite."""
        path = self.database.removeprefix("sqlite:///")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute(sql, parameters).fetchall()

    def api(self, method: str, path: str, **kwargs: Any) -> Any:
        """
        Call Airflow's REST API.

        :param path: what comes after ``/api/v2``.
        :raises AssertionError: if it is not answered with 2xx.
        """
        return _checked(self._send(method, path, **kwargs))

    def poll(self, look: Callable[[], Any], what: str, *, timeout: float = 60) -> Any:
        """Look until there is something to see, and return it; a component that has ended is an error."""

        def look_with_care() -> Any:
            for name, component in self._components.items():
                if component.poll() is not None:
                    raise RuntimeError(f"The {name} has ended:\n{(self.home / f'{name}.out').read_text()[-4000:]}")
            return look()

        return wait_until(look_with_care, what, timeout=timeout)

    def _send(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        return self._session.request(method, f"{self.url}/api/v2{path}", timeout=30, **kwargs)

    @staticmethod
    def _task_path(run: Run, task_id: str, map_index: int) -> str:
        index = f"/{map_index}" if map_index >= 0 else ""
        return f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}{index}"

    def _scheduler_lines(self) -> list[str]:
        return (self.home / "scheduler.out").read_text(errors="replace").splitlines()

    def _healthy(self) -> bool:
        try:
            health = self.api("GET", "/monitor/health")
        except requests.ConnectionError:
            return False
        return all(part["status"] == "healthy" for part in health.values())

    def _stop(self) -> None:
        self._session.close()
        end(self._components.values())
        for task in self._tasks:  # one that has lost its supervisor is below no component
            with suppress(psutil.NoSuchProcess):
                task.kill()


def wait_until(look: Callable[[], Any], what: str, *, timeout: float = 60) -> Any:
    """
    Look until there is something to see, and return it.

    :raises TimeoutError: if there is nothing in time; ``what`` says what was waited for.
    """
    deadline = time.monotonic() + timeout
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Not so within {timeout:g} s: {what}.")
        time.sleep(_POLL)
    return seen


def end(processes: Collection[subprocess.Popen[bytes]]) -> None:
    """End processes and what they have started, whatever that is doing."""
    leaders = [psutil.Process(process.pid) for process in processes if process.poll() is None]
    # A task is in a process group of its own, and the scheduler would wait for it to end by itself.
    below = [child for leader in leaders for child in leader.children(recursive=True)]
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for child in below:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    deadline = time.monotonic() + _STOP
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _checked(answer: requests.Response) -> Any:
    assert answer.ok, f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text[:2000]}"
    return answer.json() if answer.content else None


def _unix(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as bound:
        bound.bind((ADDRESS, 0))
        return bound.getsockname()[1]
