"""What is measured, on which servers, and what is to be reached."""

from dataclasses import dataclass, field

FLET = ("ours", "ours-stock", "upstream")
ALL = ("ours", "ours-stock", "upstream", "echo", "echo-stock")


@dataclass(frozen=True)
class Figure:
    """One row of the table: a value of the driver's answer."""

    key: str
    title: str
    unit: str
    more_is_better: bool = False


@dataclass(frozen=True)
class Target:
    """`figure` of `of`, divided by that of `against`, must be at least (or at most) `ratio`."""

    figure: str
    against: str
    ratio: float
    at_least: bool = True
    of: str = "ours"


@dataclass(frozen=True)
class Measure:
    name: str
    job: str
    app: str
    figures: tuple[Figure, ...]
    targets: tuple[Target, ...] = ()
    kinds: tuple[str, ...] = FLET
    options: dict[str, float] = field(default_factory=dict)
    quick: dict[str, float] = field(default_factory=dict)


def rate(title: str) -> tuple[Figure, ...]:
    return (Figure("rate", title, "/s", True),)


MEASURES = (
    Measure(
        "clicks",
        "clicks",
        "counter",
        rate("click round trips, 50 sessions"),
        (
            Target("rate", "upstream", 2.0),
            Target("rate", "echo-stock", 0.5),
            Target("rate", "echo-stock", 0.5, of="ours-stock"),
            Target("rate", "echo", 0.5),
        ),
        ALL,
        quick={"seconds": 1.5},
    ),
    Measure(
        "clicks-deflate",
        "clicks",
        "counter",
        rate("the same, permessage-deflate offered"),
        kinds=ALL,
        options={"deflate": 1},
        quick={"seconds": 1.5},
    ),
    Measure(
        "light",
        "light",
        "counter",
        (Figure("p50", "latency at 200 clicks/s, p50", "ms"), Figure("p99", "latency at 200 clicks/s, p99", "ms")),
        (Target("p99", "upstream", 1.0, at_least=False),),
        quick={"seconds": 2},
    ),
    Measure(
        "starts",
        "starts",
        "counter",
        rate("session starts"),
        (Target("rate", "upstream", 1.5),),
        quick={"seconds": 1.5},
    ),
    Measure(
        "memory",
        "idle",
        "counter",
        (Figure("kb", "memory per idle session", "KB"),),
        (Target("kb", "upstream", 1.0, at_least=False),),
        ALL,
    ),
    Measure(
        "memory-deflate",
        "idle",
        "counter",
        (Figure("kb", "the same, permessage-deflate negotiated", "KB"),),
        (Target("kb", "upstream", 0.7, at_least=False),),
        ALL,
        options={"deflate": 1},
    ),
    Measure(
        "page",
        "page",
        "page",
        (
            Figure("first", "2,000 controls, first delivery", "ms"),
            Figure("all", "2,000 controls, all of them updated", "ms"),
            Figure("one", "2,000 controls, one of them updated", "ms"),
        ),
        (Target("first", "upstream", 1.3), Target("all", "upstream", 1.3), Target("one", "upstream", 1.3)),
    ),
    Measure(
        "page-deflate",
        "page",
        "page",
        (
            Figure("first", "first delivery, permessage-deflate offered", "ms"),
            Figure("all", "all of them updated, permessage-deflate offered", "ms"),
        ),
        options={"deflate": 1},
    ),
    Measure(
        "updates",
        "updates",
        "updates",
        (Figure("ms", "2,000 updates in one handler", "ms"), Figure("frames", "frames they came in", "")),
    ),
)
