"""The results as Markdown: three tables, and in words where a peer does better."""

from statistics import median

from .scenarios import SCENARIOS

BEGIN, END = "<!-- compare: written by benches/compare/run -->", "<!-- compare: end -->"


class Footnotes:
    def __init__(self):
        self.texts = []

    def mark(self, text):
        if text not in self.texts:
            self.texts.append(text)
        return f"[^{self.texts.index(text) + 1}]"

    def lines(self):
        return [f"[^{number}]: {text}" for number, text in enumerate(self.texts, 1)]


def markdown(results):
    notes = Footnotes()
    machine = results["machine"]
    lines = [
        BEGIN,
        f"{results['date']}; {machine['processor']}, {machine['cores']} cores, {machine['memory']}, {machine['system']};"
        f" {machine['rust']}, {machine['python']}; load {results['load']} when it began. Medians of up to five runs in turns.",
        "",
        "| peer | version | what it keeps |",
        "| --- | --- | --- |",
        *(f"| {peer['title']} | {peer['version'] or peer['error']} | {peer['keeps']} |" for peer in results["peers"]),
        "",
        "![Time per task of each peer, on a logarithmic scale](compare.svg)",
        "",
        *_table(results, "time", _time_cell, notes),
        "",
        *_table(results, "most resident memory", _memory_cell, notes),
        "",
        *_table(results, "in the history afterwards", _history_cell, notes),
        "",
        *_better(results),
        "",
        *notes.lines(),
        END,
    ]
    return "\n".join(lines) + "\n"


def has_place(page):
    """Whether `insert` finds the markers that it needs."""
    return END in page.partition(BEGIN)[2]


def insert(page, text):
    """`page` with `text` in the place of what stands between the markers."""
    before, rest = page.split(BEGIN, 1)
    return before + text.rstrip("\n") + rest.split(END, 1)[1]


def _table(results, what, cell, notes):
    peers = results["peers"]
    yield "| " + " | ".join([what, *(peer["short"] for peer in peers)]) + " |"
    yield "| --- |" + " ---: |" * len(peers)
    for scenario in SCENARIOS:
        if any(entry["scenario"] == scenario.key for entry in results["measured"]):
            cells = [_cell(results, peer, scenario, cell, notes, what) for peer in peers]
            yield "| " + " | ".join([scenario.title, *cells]) + " |"


def _cell(results, peer, scenario, cell, notes, what):
    if peer["error"]:
        return "-" + notes.mark(f"{peer['short']}: {peer['error']}")
    lacks = peer["lacks"].get(scenario.key)
    if lacks:
        return "-" + notes.mark(f"{peer['short']}: {lacks}")
    entry = entry_of(results, peer["key"], scenario.key)
    if entry is None:
        return ""
    if entry["error"]:
        return "failed" + notes.mark(f"{peer['short']}: {entry['error']}")
    note = peer["notes"].get(scenario.key)
    return cell(entry, scenario) + (notes.mark(f"{peer['short']}: {note}") if note and what == "time" else "")


def entry_of(results, peer, scenario):
    found = [entry for entry in results["measured"] if (entry["peer"], entry["scenario"]) == (peer, scenario)]
    return found[0] if found else None


def time_of(entry):
    return median(entry["seconds"])


def memory_of(entry):
    return median(entry["memory"]) + entry["server_memory"]


def duration(seconds):
    for unit, size in (("s", 1), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds / size < 1000 else f"{seconds / size:,.0f} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def mebibytes(size):
    return f"{size / 2**20:,.0f} MiB" if size >= 10 * 2**20 else f"{size / 2**20:.1f} MiB"


def _time_cell(entry, scenario):
    return duration(time_of(entry))


def _memory_cell(entry, scenario):
    own = mebibytes(median(entry["memory"]))
    return f"{own} + {mebibytes(entry['server_memory'])} server" if entry["server_memory"] else own


def _history_cell(entry, scenario):
    kept = entry["history"]
    if kept is None:
        return "nothing"
    said = _of(kept["tasks"], scenario.tasks, "")
    if scenario.lines:
        said = f"{_of(kept['tasks'], scenario.tasks, ' runs')}, {_of(kept['lines'], scenario.lines, ' lines')}"
    return f"{said}, {kept['late']:.0f} s later" if kept["late"] >= 1 else said


def _of(kept, all_of_them, what):
    return f"all{what or f' {kept:,}'}" if kept == all_of_them else f"{kept:,} of {all_of_them:,}{what}"


def _better(results):
    """Where somebody who keeps a history does better than Orchestrator on SQLite."""
    if entry_of(results, "orchestrator", SCENARIOS[0].key) is None:
        return
    found = []
    for peer in results["peers"]:
        if peer["key"] in ("orchestrator", "memory", "tokio") or peer["error"]:
            continue
        for scenario in SCENARIOS:
            theirs, ours = (entry_of(results, key, scenario.key) for key in (peer["key"], "orchestrator"))
            if theirs is None or ours is None or theirs["error"] or ours["error"]:
                continue
            for what, figure, show in (("time", time_of, duration), ("memory", memory_of, mebibytes)):
                if figure(theirs) < figure(ours) * 0.95:
                    numbers = f"{show(figure(theirs))} beside {show(figure(ours))}"
                    found.append(f"- {peer['short']} takes less {what} in “{scenario.title}”: {numbers}.")
    if found:
        yield "Of those that keep a history, better than Orchestrator on SQLite by more than a twentieth:"
        yield ""
        yield from found
    else:
        yield "None of those that keep a history was better than Orchestrator on SQLite by more than a twentieth."
    factors = [
        time_of(ours) / time_of(floor)
        for scenario in SCENARIOS
        if (ours := entry_of(results, "orchestrator", scenario.key)) and (floor := entry_of(results, "tokio", scenario.key))
        if not (ours["error"] or floor["error"])
    ]
    if factors:
        yield ""
        yield (
            f"Bare tokio, which keeps nothing, is faster in every row that it has: Orchestrator on SQLite takes"
            f" {min(factors):.1f} to {max(factors):.0f} times as long."
            if min(factors) > 1
            else f"Bare tokio keeps nothing; Orchestrator on SQLite takes {min(factors):.1f} to {max(factors):.0f} times as long."
        )
