"""Who is compared: how each is installed, how its program is called, and what its history holds afterwards."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .process import Failed, without_places
from .server import Server

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "compare"


@dataclass
class History:
    """What can be read of a run after its program has ended."""

    #: Task runs that completed.
    tasks: int
    lines: int = 0
    #: Seconds from the end of the program until the history did not grow any more.
    late: float = 0.0


class Peer:
    key: str
    title: str
    #: Column heads are short.
    short: str
    #: What it keeps, in a few words.
    keeps: str
    #: Scenarios that it has nothing for, each with the reason.
    lacks: dict = {}
    #: What a reader should know of scenarios that it does differently.
    notes: dict = {}
    #: Whether what it keeps outlives the process.
    durable = True

    def install(self, fresh):
        """Makes the program, and gives the version of the library."""
        raise NotImplementedError

    def command(self, scenario):
        raise NotImplementedError

    def environment(self, folder):
        """Of the program, whose history is to be in `folder`."""
        raise NotImplementedError

    def history(self, folder, scenario, finished):
        """None if it keeps none."""
        raise NotImplementedError

    def start(self):
        """Starts what has to run beside the program."""

    def stop(self):
        pass

    def beside(self):
        """The most memory of what runs beside the program, in bytes."""
        return 0


class RustPeer(Peer):
    package: str

    #: Of the cargo project.
    folder: str

    def install(self, fresh):
        self.program = build(self.folder, fresh)
        return self._version()

    def _version(self):
        packages = re.findall(r'name = "(.+)"\nversion = "(.+)"', (HERE / self.folder / "Cargo.lock").read_text())
        return dict(packages)[self.package]

    def command(self, scenario):
        return [self.program, *scenario.words]

    def environment(self, folder):
        return os.environ | {"COMPARE_DATABASE": str(folder / "history.db")}


class Ours(RustPeer):
    key, title, short = "orchestrator", "Orchestrator, SQLite", "Orchestrator"
    folder = package = "orchestrator"
    keeps = "SQLite file, WAL, `synchronous = NORMAL`; every state of every run, log lines, results that are cached"

    def install(self, fresh):
        # It is measured with the dependencies that this repository is tested with.
        shutil.copy(ROOT / "Cargo.lock", HERE / self.folder / "Cargo.lock")
        return super().install(fresh)

    def _version(self):
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        return f"{super()._version()} ({commit.stdout.strip() or 'no commit'})"

    def environment(self, folder):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR_", "RUST_"))}
        return kept | {"ORCHESTRATOR_HOME": str(folder)}

    def history(self, folder, scenario, finished):
        newest = "flow_run = (SELECT id FROM flow_run ORDER BY created DESC LIMIT 1)"
        return History(
            tasks=_count(folder / "orchestrator.db", f"SELECT count(*) FROM task_run WHERE state = 'Completed' AND {newest}")
            + _count(folder / "orchestrator.db", f"SELECT count(*) FROM task_run WHERE state = 'Cached' AND {newest}"),
            lines=_count(folder / "orchestrator.db", "SELECT count(*) FROM log"),
        )


class OursInMemory(Ours):
    key, title, short = "memory", "Orchestrator, memory", "Orchestrator, memory"
    keeps = "the same in memory, until the process ends"
    durable = False
    notes = {"cached-1k": "The second run is in the same process, since the cache does not outlive it."}

    def command(self, scenario):
        return [*super().command(scenario), *(["twice"] if scenario.warmed else [])]

    def environment(self, folder):
        return super().environment(folder) | {"ORCHESTRATOR_DATABASE_URL": "memory"}

    def history(self, folder, scenario, finished):
        return None


class Tokio(RustPeer):
    key, title, short = "tokio", "tokio", "tokio"
    folder = package = "tokio"
    keeps = "nothing: the floor"
    durable = False
    lacks = {"cached-1k": "Has no cache.", "logs-10k": "Keeps no log lines."}

    def history(self, folder, scenario, finished):
        return None


class Durare(RustPeer):
    key, title, short = "durare", "durare, SQLite", "durare"
    folder = package = "durare"
    keeps = "SQLite file, WAL, `synchronous = NORMAL`; the outcome of each step"
    lacks = {"logs-10k": "Keeps no log lines."}
    notes = {
        "cached-1k": "Has no cache by arguments; what is measured is its nearest: each task is a workflow with an id made "
        "of its argument, and the second run is answered with the recorded outcome.",
        "retries-1k": "The outcome of the last attempt alone is recorded.",
        "limit": "Each task is a workflow in a queue, since limits are for those; by default a queue looks for work once a second.",
    }

    def history(self, folder, scenario, finished):
        database = folder / "history.db"
        if scenario.key in ("cached-1k", "limit"):
            return History(tasks=_count(database, "SELECT count(*) FROM workflow_status WHERE status = 'SUCCESS'"))
        return History(tasks=_count(database, "SELECT count(*) FROM operation_outputs WHERE error IS NULL"))


class Duroxide(RustPeer):
    key, title, short = "duroxide", "duroxide, SQLite", "duroxide"
    folder = package = "duroxide"
    keeps = "SQLite file, WAL, `synchronous = FULL`; the events of each activity"
    lacks = {"cached-1k": "Has no cache.", "logs-10k": "Keeps no log lines."}
    notes = {"limit": "The limit is the number of workers of the whole runtime, which has no others."}

    def history(self, folder, scenario, finished):
        done = "SELECT count(*) FROM history WHERE event_type = 'ActivityCompleted'"
        return History(tasks=_count(folder / "history.db", done))


class Prefect(Peer):
    key, title, short = "prefect", "Prefect, own server", "Prefect"
    keeps = "its server's SQLite file, WAL, `synchronous = NORMAL`; every state of every run, log lines"
    notes = {
        "cached-1k": "Results are kept as files, its default.",
        "limit": "A limit of concurrent task runs by tag, as its documentation says.",
    }

    def install(self, fresh):
        wanted = (HERE / "prefect" / "requirements.txt").read_text()
        self.home = TARGET / "prefect"
        if fresh:
            shutil.rmtree(self.home, ignore_errors=True)
        stamp = self.home / "installed.txt"
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(self.home, ignore_errors=True)
            _must(["python3", "-m", "venv", self.home / "venv"])
            _must([self._bin("pip"), "install", "--quiet", "--requirement", HERE / "prefect" / "requirements.txt"])
            stamp.write_text(wanted)
        said = _must([self._bin("pip"), "list", "--format", "json", "--disable-pip-version-check"])
        return next(package["version"] for package in json.loads(said) if package["name"] == "prefect")

    def _bin(self, name):
        return self.home / "venv" / "bin" / name

    def start(self):
        self.server = Server(self._bin("prefect"), self.home)
        self.server.start()
        self.server.ask("concurrency-limit", "create", "ten", "10")

    def stop(self):
        self.server.stop()

    def command(self, scenario):
        return [self._bin("python"), HERE / "prefect" / "pipeline.py", *scenario.words]

    def environment(self, folder):
        self.server.forget_peak()
        return self.server.environment

    def beside(self):
        return self.server.peak()

    def history(self, folder, scenario, finished):
        run = finished.said["flow_run"]
        tasks = f"SELECT count(*) FROM task_run WHERE flow_run_id = '{run}' AND state_type = 'COMPLETED'"
        lines = f"SELECT count(*) FROM log WHERE flow_run_id = '{run}' AND message LIKE 'line %'"

        def now():
            database = self.server.database
            return _count(database, tasks), _count(database, lines) if scenario.lines else 0

        (tasks, lines), late = self.server.settled(now, (scenario.tasks, scenario.lines))
        return History(tasks, lines, late)


def build(folder, fresh):
    """Builds the cargo project in `folder`, each in a target folder of its own, and gives its program."""
    target = TARGET / "build" / folder
    if fresh:
        shutil.rmtree(target, ignore_errors=True)
    environment = os.environ | {"CARGO_TARGET_DIR": str(target)}
    command = ["cargo", "build", "--release", "--quiet"]
    built = subprocess.run(command, cwd=HERE / folder, env=environment, capture_output=True, text=True)
    if built.returncode != 0:
        raise Failed(f"cannot be built: {_last_error(built.stderr)}")
    return target / "release" / f"compare-{folder}"


PEERS = (Ours, OursInMemory, Tokio, Durare, Duroxide, Prefect)


def _count(database, query):
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
    try:
        return connection.execute(query).fetchone()[0]
    finally:
        connection.close()


def _must(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"cannot be installed: {_last_error(done.stderr or done.stdout)}")
    return done.stdout


def _last_error(text):
    """The line that says most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    line = (errors or lines or ["it said nothing"])[-1]
    return without_places(line)[:200]
