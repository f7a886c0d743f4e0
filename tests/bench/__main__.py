"""``python -m tests.bench engine [--json]``, ``python -m tests.bench pipeline --mode single|pack [--json]``,
``python -m tests.bench appraisal [--incidents N] [--json]``,
``python -m tests.bench district [--ledger sqlite|postgresql] [--json]`` and
``python -m tests.bench console|resident|demo [--json]``."""

from __future__ import annotations

import argparse
import json
import sys


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench")
    kinds = parser.add_subparsers(dest="kind", required=True)
    engine = kinds.add_parser("engine", help="rule evaluations per second on one core")
    engine.add_argument("--seconds", type=float, default=5.0)
    engine.add_argument("--json", action="store_true")
    pipeline = kinds.add_parser("pipeline", help="readings per second through a real Mosquitto into SQLite")
    pipeline.add_argument("--mode", choices=("single", "pack"), required=True)
    pipeline.add_argument("--messages", type=int)
    pipeline.add_argument("--json", action="store_true")
    appraisal = kinds.add_parser("appraisal", help="seconds to appraise a month on SQLite")
    appraisal.add_argument("--incidents", type=int, default=50_000)
    appraisal.add_argument("--json", action="store_true")
    district = kinds.add_parser("district", help="seconds to take a whole district in from tables, and out again")
    district.add_argument("--ledger", choices=("sqlite", "postgresql"), default="sqlite")
    district.add_argument("--communities", type=int, default=277)
    district.add_argument("--json", action="store_true")
    for name, whose in (("console", "a press"), ("resident", "a press on a resident's page")):
        console = kinds.add_parser(name, help=f"milliseconds from {whose} to every open board")
        console.add_argument("--incidents", type=int, default=5_000)
        console.add_argument("--browsers", type=int, default=200)
        console.add_argument("--presses", type=int, default=60)
        console.add_argument("--communities", type=int, default=20)
        console.add_argument("--json", action="store_true")
    demo = kinds.add_parser("demo", help="the same from a resident's page, while the demo runs")
    demo.add_argument("--browsers", type=int, default=20)
    demo.add_argument("--presses", type=int, default=300)
    demo.add_argument("--json", action="store_true")
    drain = kinds.add_parser("drain", help="(used by pipeline) the gateway's side")
    drain.add_argument("count", type=int)
    args = parser.parse_args()
    if args.kind == "engine":
        from tests.bench.engine import run as run_engine

        result: dict[str, object] = run_engine(args.seconds)
    elif args.kind == "pipeline":
        from tests.bench.pipeline import run as run_pipeline

        result = run_pipeline(args.mode, args.messages)
    elif args.kind == "appraisal":
        from tests.bench.appraisal import run as run_appraisal

        result = run_appraisal(args.incidents)
    elif args.kind == "district":
        from tests.bench.district import run as run_district

        result = run_district(args.ledger, args.communities)
    elif args.kind in ("console", "resident"):
        from tests.bench.console import run as run_console

        by_page = args.kind == "resident"
        result = run_console(args.incidents, args.browsers, args.presses, args.communities, by_page=by_page)
    elif args.kind == "demo":
        from tests.bench.console import run_with_demo

        result = run_with_demo(args.browsers, args.presses)
    else:
        from tests.bench.drain import run as run_drain

        print(json.dumps(run_drain(args.count)))
        return
    if args.json:
        print(json.dumps(result))
    else:
        width = max(map(len, result))
        sys.stdout.writelines(f"{name:<{width}}  {value}\n" for name, value in result.items())


if __name__ == "__main__":
    main()
