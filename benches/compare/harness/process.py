"""Runs a program once, and takes its time and memory as the system accounts for them."""

import json
import os
import re
import signal
import subprocess
from dataclasses import dataclass


class Failed(Exception):
    """A program did not do the work: the message says what it said."""


class TookTooLong(Failed):
    """It was given up."""


def without_places(text):
    """What a program said, without folders of this machine or addresses: it may come onto the page."""
    return re.sub(r"\S*/\S*/\S*", "…", text)


@dataclass
class Finished:
    #: From the start of the process to its end.
    wall: float
    #: The most memory that it had resident, in bytes.
    memory: int
    #: What the program says of its work: `seconds`, and what finds the run in the history.
    said: dict


def run(measure, command, environment, output, timeout):
    """Runs `command`; what it prints on the standard error goes to the file `output`, as it would in production.

    `measure` is the program that starts it, takes the time and asks for the memory.
    """
    with open(output, "wb") as errors:
        child = subprocess.Popen(
            [measure, *command], env=environment, cwd=output.parent, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True,
        )
        try:
            said, _ = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            raise TookTooLong(f"took more than {timeout:.0f} s") from None
        except SystemExit:
            os.killpg(child.pid, signal.SIGKILL)
            raise
    if child.returncode != 0:
        last = output.read_text(errors="replace").strip().splitlines()[-1:]
        raise Failed(f"ended with status {child.returncode}: {without_places(''.join(last))[:300] or 'it said nothing'}")
    try:
        told, usage = (json.loads(line) for line in said.strip().splitlines()[-2:])
    except ValueError as error:
        raise Failed(f"did not say how long it took: {without_places(said[-200:])!r}") from error
    return Finished(wall=usage["wall"], memory=usage["memory"], said=told)


def resident_peak(root):
    """The sum of the most that the process `root` and its descendants had resident, in bytes (Linux)."""
    total = 0
    for pid in _family(root):
        try:
            with open(f"/proc/{pid}/status") as status:
                total += sum(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
        except OSError:
            pass
    return total


def forget_peak(root):
    """Lets `resident_peak` start anew from what is resident now."""
    for pid in _family(root):
        try:
            with open(f"/proc/{pid}/clear_refs", "w") as refs:
                refs.write("5")
        except OSError:
            pass


def _family(root):
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    parents[int(entry)] = int(stat.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                pass
    family, found = {root}, True
    while found:
        found = {pid for pid, parent in parents.items() if parent in family} - family
        family |= found
    return family
