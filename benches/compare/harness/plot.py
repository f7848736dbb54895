"""The times as a picture: a bar for each peer, on a logarithmic scale, in groups by scenario."""

from math import ceil, floor, log10
from xml.sax.saxutils import escape

from .report import duration, entry_of, time_of
from .scenarios import SCENARIOS

COLOURS = {
    "orchestrator": "#0b5cad",
    "memory": "#7db3e8",
    "tokio": "#8a8a8a",
    "durare": "#d1791b",
    "duroxide": "#7a4fb5",
    "prefect": "#2f8f4e",
}
LEFT, WIDTH, RIGHT = 230, 560, 110
BAR, GAP, GROUP = 13, 2, 12


def svg(results):
    """Empty if nothing could be measured."""
    peers = [peer for peer in results["peers"] if not peer["error"]]
    groups = []
    for scenario in SCENARIOS:
        entries = [(peer, entry_of(results, peer["key"], scenario.key)) for peer in peers]
        bars = [(peer, time_of(entry) / scenario.tasks) for peer, entry in entries if entry and not entry["error"]]
        if bars:
            groups.append((scenario, bars))
    if not groups:
        return ""
    values = [seconds for _, bars in groups for _, seconds in bars]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))

    def x(seconds):
        return LEFT + WIDTH * (log10(seconds) - low) / (high - low)

    top = 62
    bottom = top + sum(len(bars) * (BAR + GAP) + GROUP for _, bars in groups)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {bottom + 34}"'
        ' font-family="system-ui, sans-serif" font-size="12">',
        "<title>Time per task</title>",
        f'<rect width="{LEFT + WIDTH + RIGHT}" height="{bottom + 34}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="600">Time per task (logarithmic; shorter is better)</text>',
    ]
    at = LEFT
    for peer in peers:
        parts.append(f'<rect x="{at}" y="33" width="11" height="11" fill="{COLOURS[peer["key"]]}"/>')
        parts.append(f'<text x="{at + 16}" y="43">{escape(peer["short"])}</text>')
        at += 34 + 7 * len(peer["short"])
    for power in range(low, high + 1):
        line = x(10**power)
        parts.append(f'<line x1="{line:.1f}" x2="{line:.1f}" y1="{top - 8}" y2="{bottom}" stroke="#dddddd"/>')
        parts.append(f'<text x="{line:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#555555">{duration(10.0**power)}</text>')
    y = top
    for scenario, bars in groups:
        middle = y + len(bars) * (BAR + GAP) / 2 + 3
        parts.append(f'<text x="{LEFT - 10}" y="{middle:.1f}" text-anchor="end">{escape(scenario.title)}</text>')
        for peer, seconds in bars:
            width = max(x(seconds) - LEFT, 1)
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{COLOURS[peer["key"]]}"/>')
            parts.append(f'<text x="{LEFT + width + 5:.1f}" y="{y + BAR - 2.5}" font-size="11">{duration(seconds)}</text>')
            y += BAR + GAP
        y += GROUP
    return "\n".join([*parts, "</svg>"]) + "\n"
