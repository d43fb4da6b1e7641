"""What a fleet of 1,000 machines with 10 sensors at 1 Hz costs: seconds of one core for each second of the plant."""

import argparse
import time

from aurum_sim.fleet import Fleet
from benchmarks.harness import Goal, report, spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    steps = 10 if parser.parse_args().quick else 60
    fleet = Fleet(1000, 1, "bench")
    costs, readings = [], 0
    for step in range(steps):
        started = time.process_time()
        made = [(each.message.SerializeToString(), each.readings) for each in fleet.advance(1 / 6, [step * 1_000_000])]
        costs.append(time.process_time() - started)
        readings += sum(count for _, count in made)
    report(
        "simulator",
        {"core_share": Goal(spread(costs)["median"], 1.0, at_most=True)},
        {"seconds_per_step": spread(costs), "readings_per_step": readings / steps},
    )


if __name__ == "__main__":
    main()
