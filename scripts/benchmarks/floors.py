"""Our programs against the floor: raw clients (crates/floor) that only receive, or send what was encoded before."""

import contextlib

from benchmarks.results import Row

# What lets about 1,000 relationships a second into PostgreSQL.
SLOW_KILOBYTES = 150


@contextlib.contextmanager
def empty_target(bench, latency, schema):
    with bench.servers.target(bench.options.target), bench.servers.far("target", latency) as flags:
        bench.wall(["spice-import", *flags, "--schema", "write", schema])
        yield flags


def snapshot_and_schema(bench, count):
    snapshot = bench.save("snapshot.ndjson", *bench.sample(count))
    return snapshot, bench.save("schema.ndjson", *bench.sample(0))


def alone(bench):
    """spice-export, spice-import and both joined, at each latency."""
    snapshot, schema = snapshot_and_schema(bench, bench.options.relationships)
    for latency in bench.options.latency:
        with bench.servers.far("source", latency) as source:
            export = ["spice-export", *source, "--settle", "0s"]
            name = f"export, {latency} ms"
            drain = lambda page: bench.floor([*source, "drain", "--page", page])
            (page,) = bench.best(name, [("1000",), ("10000",)], drain)
            pairs = bench.rounds(
                name, lambda: bench.wall([*export, "--output", "/dev/null"]), lambda: drain(page)
            )
            yield Row.of(name, f"a drain of {page}", pairs)

            def load(rows, flight):
                with empty_target(bench, latency, schema) as target:
                    return bench.floor(loads(target, snapshot, rows, flight))

            name = f"import, {latency} ms"
            grid = [(rows, flight) for rows in ("10000", "50000") for flight in ("1", "4")]
            rows, flight = bench.best(name, grid, load)

            def imported(*producer):
                with empty_target(bench, latency, schema) as target:
                    fail = ["spice-import", *target, "--on-conflict", "fail"]
                    return bench.wall(*producer, fail if producer else [*fail, snapshot])

            pairs = bench.rounds(name, imported, lambda: load(rows, flight))
            yield Row.of(name, f"{flight} transactions of {rows}", pairs)

            def both():
                with empty_target(bench, latency, schema) as target:
                    return bench.floor([*source, "drain", "--page", page], loads(target, snapshot, rows, flight))

            name = f"export into import, {latency} ms"
            yield Row.of(name, "both floors at once", bench.rounds(name, lambda: imported(export), both))


def loads(target, snapshot, rows, flight):
    return [*target, "load", "--rows", rows, "--in-flight", flight, str(snapshot)]


def catchup(bench):
    """spice-apply with a backlog of transactions of one update."""
    options = bench.options
    present = str(max(100_000, options.transactions // 2))
    changes = ["xtask", "changes", "--transactions", str(options.transactions), "--relationships", present]
    backlog = bench.save("changes.ndjson", *changes)
    snapshot = bench.save("present.ndjson", *bench.sample(present))
    kind = f"{options.target}{', no statistics' if options.cold else ''}"
    for latency in options.latency:

        def applied(work):
            with bench.servers.target(options.target) as target:
                bench.wall(["spice-import", "--context", target, snapshot])
                if not options.cold:
                    bench.servers.analyze(options.target, target)
                with bench.servers.far(target, latency) as flags:
                    return work(flags)

        def send(updates, flight):
            command = ["--updates", updates, "--in-flight", flight, str(backlog)]
            return applied(lambda flags: bench.floor([*flags, "write", *command]))

        name = f"catch-up, {kind}, {latency} ms"
        sizes, flights = (("100", "200", "500"), ("1", "4")) if latency == 0 else (("200", "500"), ("8", "32"))
        if options.target == "memory":
            flights = ("1",)
        grid = [(size, flight) for size in sizes for flight in flights]
        updates, flight = bench.best(name, grid, send)
        ours = lambda: applied(lambda flags: bench.wall(["spice-apply", *flags, backlog]))
        pairs = bench.rounds(name, ours, lambda: send(updates, flight))
        yield Row.of(name, f"{flight} calls of {updates}", pairs)


def slow(bench):
    """A target whose database takes about 1,000 relationships a second."""
    count = bench.options.slow
    snapshot, schema = snapshot_and_schema(bench, count)
    changes = ["xtask", "changes", "--transactions", str(count), "--relationships", str(count)]
    updates = bench.save("slow-changes.ndjson", *changes)

    def target(work):
        with bench.servers.slow_target(SLOW_KILOBYTES) as flags:
            bench.wall(["spice-import", *flags, "--schema", "write", schema])
            return work(flags)

    load = ["spice-import", "--on-conflict", "fail", str(snapshot)]
    ways = {
        "import": (load, "load", "--rows", ("500", "2000")),
        "catch-up": (["spice-apply", str(updates)], "write", "--updates", ("100", "500")),
    }
    for way, (command, work, flag, sizes) in ways.items():
        name = f"{way}, slow target, {count:,}"
        grid = [(size, flight) for size in sizes for flight in ("1", "4")]
        raw = lambda size, flight: target(
            lambda flags: bench.floor([*flags, work, flag, size, "--in-flight", flight, command[-1]])
        )
        size, flight = bench.best(name, grid, raw)
        ours = lambda: target(lambda flags: bench.wall([command[0], *flags, *command[1:]]))
        pairs = bench.rounds(name, ours, lambda: raw(size, flight))
        yield Row.of(name, f"{flight} of {size}", pairs)


def growth(bench):
    """Time for a relationship of a load of 2,000,000 and of 100,000, of ours and of the floor: databases slow down."""
    counts = large, small = 2_000_000, 100_000
    samples = {count: bench.save(f"{count}.ndjson", *bench.sample(count)) for count in counts}
    schema = bench.save("schema.ndjson", *bench.sample(0))

    def ours(count):
        with bench.servers.target(bench.options.target):
            return bench.wall(["spice-import", "--context", "target", samples[count]])

    def floor(count):
        with empty_target(bench, 0, schema) as target:
            return bench.floor(loads(target, samples[count], "50000", "4"))

    for name, work in (("import", ours), ("floor", floor)):
        microseconds = lambda count: work(count) / count * 1e6
        pairs = bench.rounds(f"growth of {name}", lambda: microseconds(large), lambda: microseconds(small))
        yield Row.of(f"{name}, us for each of 2,000,000", "each of 100,000", pairs)
