"""The work of the comparison with Prefect, as its documentation says to write it."""

import json
import sys
import time

from prefect import flow, get_run_logger, task
from prefect.cache_policies import INPUTS
from prefect.runtime import flow_run, task_run

LINES_PER_TASK = 100
RUNS = []


@task
def extract():
    return list(range(100))


@task
def transform(rows):
    return [row * 2 for row in rows]


@task
def load(rows):
    return sum(rows)


@flow
def etl():
    RUNS.append(flow_run.id)
    return load(transform(extract()))


@task
def echo(value):
    return value


@flow
def fan_out(tasks):
    RUNS.append(flow_run.id)
    return sum(echo.map(range(tasks)).result())


@task
def increment(value):
    return value + 1


@flow
def chain(tasks):
    RUNS.append(flow_run.id)
    last = increment.submit(0)
    for _ in range(1, tasks):
        last = increment.submit(last)
    return last.result()


@task(cache_policy=INPUTS, persist_result=True)
def remember(value):
    return value


@flow
def cached(tasks):
    RUNS.append(flow_run.id)
    return sum(remember.map(range(tasks)).result())


@task(retries=1)
def flaky(value):
    if task_run.run_count == 1:
        raise RuntimeError("not yet")
    return value


@flow
def retries(tasks):
    RUNS.append(flow_run.id)
    return sum(flaky.map(range(tasks)).result())


@task(tags=["ten"])
def limited(value):
    time.sleep(0.001)
    return value


@flow
def limit(tasks):
    RUNS.append(flow_run.id)
    return sum(limited.map(range(tasks)).result())


@task
def talk(value):
    logger = get_run_logger()
    for line in range(LINES_PER_TASK):
        logger.info("line %d of task %d", line, value)
    return value


@flow
def logs(lines):
    RUNS.append(flow_run.id)
    return sum(talk.map(range(lines // LINES_PER_TASK)).result())


def main():
    scenario, size = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    flows = {
        "etl": (etl, 9900),
        "fan-out": (fan_out, sum(range(size))),
        "chain": (chain, size),
        "cached": (cached, sum(range(size))),
        "retries": (retries, sum(range(size))),
        "limit": (limit, sum(range(size))),
        "logs": (logs, sum(range(size // LINES_PER_TASK))),
    }
    work, expected = flows[scenario]
    start = time.perf_counter()
    total = work(size) if size else work()
    seconds = time.perf_counter() - start
    assert total == expected, f"every task ran: {total} is not {expected}"
    print(json.dumps({"seconds": seconds, "flow_run": str(RUNS[-1])}))


if __name__ == "__main__":
    main()
