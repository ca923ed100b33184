"""Rows of results: printed as a table, stored, compared with what is stored, and drawn."""

import dataclasses
import html
import json
import statistics

from benchmarks.servers import ROOT

STORED = ROOT / "docs/benchmarks.json"
PLOT = ROOT / "docs/benchmarks.svg"
# A ratio that is this much worse than the stored one fails a check.
WORSE = 0.15


@dataclasses.dataclass
class Row:
    """What was measured, against what, and the ratio of each round: 1 is as fast, more is faster than the other."""

    name: str
    against: str
    ours: float
    other: float
    ratio: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, name, against, rounds):
        """`rounds`: pairs of ours and the other, in seconds (or in anything of which less is better)."""
        ratios = sorted(other / ours for ours, other in rounds)
        ours, other = (statistics.median(side) for side in zip(*rounds))
        return cls(name, against, ours, other, statistics.median(ratios), ratios[0], ratios[-1], len(rounds))


def show(rows):
    print("| | against | ours | other | other / ours | worst to best |\n|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.name} | {row.against} | {row.ours:.2f} | {row.other:.2f} | {row.ratio:.2f} "
              f"| {row.low:.2f} to {row.high:.2f} |")
    print(flush=True)


def stored():
    return {row["name"]: Row(**row) for row in json.loads(STORED.read_text())} if STORED.exists() else {}


def store(rows):
    all_rows = stored() | {row.name: row for row in rows}
    lines = ",\n".join(json.dumps(dataclasses.asdict(row)) for row in all_rows.values())
    STORED.write_text(f"[\n{lines}\n]\n")
    PLOT.write_text(plot(list(all_rows.values())))


def check(rows):
    """The rows that are worse than stored, or not stored, as lines for people."""
    before, worse = stored(), []
    for row in rows:
        if row.name not in before:
            worse.append(f"{row.name}: nothing is stored to compare it with")
        # Of a row whose rounds still reach what is stored, the spread is the reason.
        elif row.high < before[row.name].ratio and row.ratio < before[row.name].ratio * (1 - WORSE):
            worse.append(f"{row.name}: {row.ratio:.2f} of {row.against}, stored {before[row.name].ratio:.2f}")
    return worse


def plot(rows):
    """An SVG: a bar for each ratio, a line for its spread, and where both would be equally fast."""
    left, width, height, line = 330, 420, 40 + 24 * len(rows), 24
    scale = width / max(1.25, *(row.high for row in rows))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 60}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{left}" y="16">'
        "how fast, as a share of the other: median, and worst to best round</text>",
    ]
    for place, row in enumerate(rows):
        y = 28 + line * place
        low, high = (left + value * scale for value in (row.low, row.high))
        label = html.escape(f"{row.name}, of {row.against}")
        parts += [
            f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{label}</text>',
            f'<rect x="{left}" y="{y}" width="{row.ratio * scale:.0f}" height="16" fill="#4477aa"/>',
            f'<path d="M{low:.0f} {y + 8}H{high:.0f}" stroke="black"/>',
            f'<text x="{max(high, left + row.ratio * scale) + 6:.0f}" y="{y + 13}">{row.ratio:.2f}</text>',
        ]
    parts.append(f'<path d="M{left + scale:.0f} 22V{height}" stroke="#cc3311" stroke-dasharray="4"/></svg>\n')
    return "\n".join(parts)
