"""Samples to markdown."""

import platform
from importlib.metadata import version
from statistics import median

from bench.measures import Figure, Measure, Target
from bench.servers import KINDS

Samples = dict[tuple[str, str], list[dict[str, float]]]


def report(measures: list[Measure], samples: Samples) -> str:
    parts = [about(), table(measures, samples), targets(measures, samples), driver_share(measures, samples)]
    return "\n\n".join(part for part in parts if part)


def about() -> str:
    packages = ("uvicorn", "websockets", "uvloop", "fastapi", "flet-core")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"Python {platform.python_version()}, {versions}. Median [lowest-highest] of the rounds."


def table(measures: list[Measure], samples: Samples) -> str:
    lines = [row(["", *(kind.title for kind in KINDS.values())]), row(["---", *["---:"] * len(KINDS)])]
    for measure in measures:
        for figure in measure.figures:
            cells = (cell(samples.get((measure.name, kind), []), figure) for kind in KINDS)
            lines.append(row([f"{figure.title}{f' ({figure.unit})' if figure.unit else ''}", *cells]))
    return "\n".join(lines)


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(rows: list[dict[str, float]], figure: Figure) -> str:
    values = [one[figure.key] for one in rows if figure.key in one]
    if not values:
        return "-"
    middle = number(median(values))
    return middle if len(values) == 1 else f"{middle} [{number(min(values))}-{number(max(values))}]"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def targets(measures: list[Measure], samples: Samples) -> str:
    lines = [row(["ratio", "reached", "to reach", ""]), row(["---", "---:", "---:", "---"])]
    for measure in measures:
        lines += [target_row(measure, target, samples) for target in measure.targets]
    return "\n".join(lines) if len(lines) > 2 else ""


def target_row(measure: Measure, target: Target, samples: Samples) -> str:
    figure = next(figure for figure in measure.figures if figure.key == target.figure)
    ours, theirs = (
        median(one[figure.key] for one in samples[measure.name, kind]) for kind in (target.of, target.against)
    )
    # "At least 1.3 times" of a time means that much faster.
    faster = target.at_least and not figure.more_is_better
    reached = theirs / ours if faster else ours / theirs
    met = reached >= target.ratio if target.at_least else reached <= target.ratio
    sign = "≥" if target.at_least else "≤"
    compared = f"{KINDS[target.of].title} against {KINDS[target.against].title}"
    return row([f"{figure.title}: {compared}", f"{reached:.2f} x", f"{sign} {target.ratio} x", "" if met else "**no**"])


def driver_share(measures: list[Measure], samples: Samples) -> str:
    """The highest share of its core that the driver used, by measure."""
    shares = []
    for measure in measures:
        by_kind = {
            kind: [one["cpu"] for one in samples.get((measure.name, kind), []) if "cpu" in one] for kind in KINDS
        }
        used = [f"{KINDS[kind].title} {max(values):.0%}" for kind, values in by_kind.items() if values]
        if used:
            shares.append(f"- {measure.name}: {', '.join(used)}")
    return "The driver's share of its core, at most:\n\n" + "\n".join(shares) if shares else ""
