"""`python -m bench`: this library, upstream and a raw echo on the same work, in turns; a table on standard output."""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict

from bench.measures import MEASURES, Measure
from bench.report import Samples, report
from bench.servers import KINDS, ROOT, running
from bench.upstream import set_up


def drive(job: str, url: str, options: dict[str, float]) -> dict[str, float]:
    pairs = [f"{name}={json.dumps(value)}" for name, value in options.items()]
    command = [sys.executable, "-m", "bench.driver", job, url, *pairs]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "app")])}
    answer = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True, timeout=300)
    values: dict[str, float] = json.loads(answer.stdout)
    return values


def measure_once(measure: Measure, kind: str, quick: bool) -> dict[str, float]:
    """One sample, from a server that has done nothing else before."""
    job, app = ("echo", "echo") if measure.job == "clicks" and kind.startswith("echo") else (measure.job, measure.app)
    options = measure.options | (measure.quick if quick else {})
    with running(KINDS[kind], app) as server:
        if job == "idle":
            options = options | {"pid": server.pid, "bare": int(kind.startswith("echo"))}
        return drive(job, server.url, options)


def run(rounds: int, quick: bool, chosen: list[Measure]) -> Samples:
    samples: Samples = defaultdict(list)
    for number in range(rounds):
        for measure in chosen:
            for kind in measure.kinds:
                print(f"round {number + 1}/{rounds}: {measure.name}, {KINDS[kind].title}", file=sys.stderr)
                samples[measure.name, kind].append(measure_once(measure, kind, quick))
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: a look, not a result")
    parser.add_argument("--rounds", type=int, help="how often each measure is taken (5, or 1 with --quick)")
    parser.add_argument(
        "--only", nargs="+", choices=[measure.name for measure in MEASURES], help="these measures alone"
    )
    parser.add_argument("--json", help="write every sample to this file")
    options = parser.parse_args()
    set_up()
    chosen = [measure for measure in MEASURES if not options.only or measure.name in options.only]
    samples = run(options.rounds or (1 if options.quick else 5), options.quick, chosen)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(
                [{"measure": name, "server": kind, "samples": rows} for (name, kind), rows in samples.items()], file
            )
    print(report(chosen, samples))


if __name__ == "__main__":
    main()
