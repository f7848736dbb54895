"""The work that is measured: the same for every peer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    key: str
    #: What the tables call it.
    title: str
    #: The words that each peer's program is called with.
    words: tuple
    #: How many task runs the history should have afterwards.
    tasks: int
    #: How many log lines.
    lines: int = 0
    #: The whole process counts, its start included, not the flow alone.
    whole_process: bool = False
    #: The program is run once before, over the same history, and is not measured then.
    warmed: bool = False


SCENARIOS = (
    Scenario("etl", "three-task ETL, cold start", ("etl",), tasks=3, whole_process=True),
    Scenario("fan-out-100", "fan-out of 100", ("fan-out", "100"), tasks=100),
    Scenario("fan-out-1k", "fan-out of 1,000", ("fan-out", "1000"), tasks=1_000),
    Scenario("fan-out-10k", "fan-out of 10,000", ("fan-out", "10000"), tasks=10_000),
    Scenario("chain-1k", "chain of 1,000", ("chain", "1000"), tasks=1_000),
    Scenario("cached-1k", "cached second run of 1,000", ("cached", "1000"), tasks=1_000, warmed=True),
    Scenario("retries-1k", "1,000 tasks that fail once", ("retries", "1000"), tasks=1_000),
    Scenario("limit", "100 tasks of 1 ms, 10 at a time", ("limit", "100"), tasks=100),
    Scenario("logs-10k", "10,000 log lines from 100 tasks", ("logs", "10000"), tasks=100, lines=10_000),
)

#: What `--quick` leaves out.
LONG = {"fan-out-10k", "logs-10k"}
