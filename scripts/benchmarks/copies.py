"""Copies, digests and repairs; against zed where it is on PATH."""

import json
import pathlib
from statistics import median

from benchmarks.measure import report
from benchmarks.results import Row
from benchmarks.servers import read

SETTLED = ["--settle", "0s"]


def copy(bench):
    """Each round loads into a new, empty target. zed: `backup create`, then `restore`."""
    for latency in bench.options.latency:
        yield from copies(bench, latency)


def copies(bench, latency):
    options = bench.options
    memory = []

    def ours():
        with (
            bench.servers.far("source", latency) as source,
            bench.servers.target(options.target),
            bench.servers.far("target", latency) as target,
        ):
            export = ["spice-export", *source, *SETTLED, "--jobs", options.jobs]
            wall, usages = bench.run(export, ["spice-import", *target])
        memory.append([peak for _, peak in usages])
        return wall, sum(cpu for cpu, _ in usages)

    def theirs():
        (bench.folder / "backup.zedbackup").unlink(missing_ok=True)
        with bench.servers.target(options.target):
            steps = [zed_step(bench, latency, "source", "create"), zed_step(bench, latency, "target", "restore")]
        return sum(wall for wall, _ in steps), sum(sum(cpu for cpu, _ in usages) for _, usages in steps)

    pairs = []
    for number in range(options.rounds):
        pairs.append((ours(), theirs() if bench.options.zed else (float("nan"),) * 2))
        report(f"copy, {latency} ms, round {number + 1}: ours {pairs[-1][0][0]:.2f} s, zed {pairs[-1][1][0]:.2f} s")
    peaks = [f"{median(program):.0f}" for program in zip(*memory)]
    report(f"copy, {latency} ms: peak memory of export and import {' and '.join(peaks)} MiB")
    if bench.options.zed:
        for place, what in enumerate(("", ", CPU")):
            sides = [(ours[place], theirs[place]) for ours, theirs in pairs]
            yield Row.of(f"copy{what}, {latency} ms", "zed create, then restore", sides)


def zed_step(bench, latency, name, *command):
    settings = bench.servers.settings(name)
    with bench.servers.far(name, latency) as flags:
        variables = {
            "ZED_ENDPOINT": flags[-1] if latency else settings["endpoint"],
            "ZED_TOKEN": read(pathlib.Path(settings["token-file"])),
            "ZED_INSECURE": "true",
            "ZED_SKIP_VERSION_CHECK": "true",
        }
        backup = str(bench.folder / "backup.zedbackup")
        return bench.run([bench.options.zed, "backup", *command, backup], environment=variables)


def digest(bench):
    """What spice-digest adds to an export."""
    export = ["spice-export", "--context", "source", *SETTLED]
    pairs = bench.rounds(
        "digest",
        lambda: bench.wall(export, ["spice-digest"]),
        lambda: bench.wall([*export, "--output", "/dev/null"]),
    )
    yield Row.of("export into digest", "export alone", pairs)


def diff(bench):
    """What spice-diff adds to two exports at once."""
    export = ["spice-export", "--context", "source", *SETTLED]
    exports = [f"<({' '.join(export)})" for _ in range(2)]
    both = f"{' '.join(export)} --output /dev/null & {' '.join(export)} --output /dev/null && wait $!"
    pairs = bench.rounds(
        "diff",
        lambda: bench.wall(["bash", "-c", f"spice-diff {' '.join(exports)}"]),
        lambda: bench.wall(["bash", "-c", both]),
    )
    yield Row.of("diff of two exports", "both exports alone", pairs)


def repair(bench):
    """A target that has drifted (missing, changed and extra relationships in equal parts) is made equal again."""
    options = bench.options
    migrate = ["spice-migrate", "--state", str(bench.folder / "migration")]
    precision = "s" if "mysql" in (options.source, options.target) else "us"
    settings = f"--settle 0s --expiry-precision {precision}"
    ends = [f"<(spice-export --context {end} {settings})" for end in ("target", "source")]
    pipe = f"set -o pipefail; spice-diff --exit-zero {' '.join(ends)} | spice-apply --context target"
    with bench.servers.target(options.target):
        bench.wall([*migrate, "plan", "--from", "source", "--to", "target"])
        bench.wall([*migrate, "copy", *SETTLED])
        bench.servers.analyze(options.target, "target")
        updates = drift(bench)

        def repaired(work):
            bench.wall(["spice-apply", "--context", "target", "--no-trailer", str(updates)])
            return work()

        ways = {
            "repair by spice-diff": lambda: bench.wall(["bash", "-c", pipe]),
            "repair by spice-migrate resync": lambda: bench.wall([*migrate, "resync", *SETTLED]),
        }
        if options.zed:
            zed_step(bench, 0, "source", "create")
        for name, way in ways.items():
            if options.zed:
                touch = lambda: zed_step(bench, 0, "target", "restore", "--conflict-strategy", "touch")[0]
                pairs = bench.rounds(name, lambda: repaired(way), lambda: repaired(touch))
                yield Row.of(name, "zed restore --conflict-strategy touch", pairs)
                bench.wall(["bash", "-c", pipe])  # zed's restore does not delete extra relationships
            else:
                report(f"{name}: {median([repaired(way) for _ in range(options.rounds)]):.2f} s")


def drift(bench):
    """Updates after which a target has missing, changed and extra relationships."""
    updates = bench.folder / "drift.ndjson"
    export = bench.save("source.ndjson", "spice-export", "--context", "source", *SETTLED, "--quiet")
    with open(export, encoding="utf-8") as lines:
        relationships = [line for line in lines if line.startswith('{"relationship"')]
    every = int(1000 / bench.options.drift)
    with open(updates, "w", encoding="utf-8") as out:
        for number, line in enumerate(relationships[::every]):
            relationship = json.loads(line)["relationship"]
            operation = "OPERATION_TOUCH"
            if number % 3 == 0:
                operation = "OPERATION_DELETE"
            elif number % 3 == 1 and "optionalExpiresAt" in relationship:
                relationship["optionalExpiresAt"] = "2199-01-01T00:00:00Z"
            elif number % 3 == 1 and "optionalCaveat" in relationship:
                relationship["optionalCaveat"]["context"] = {}
            else:
                relationship["resource"]["objectId"] += "-drift"
            print(json.dumps({"update": {"operation": operation, "relationship": relationship}}), file=out)
    return updates
