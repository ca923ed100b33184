"""A change on its way from one server to another, with nothing before it."""

import contextlib
import json
import subprocess
import threading
import time
from statistics import median, quantiles

from benchmarks.measure import report

CHANGES = 100
# No other change is on the way.
APART = 0.05


def tip(bench):
    """Milliseconds from a change out of the source's Watch to the same one out of the target's."""
    with bench.servers.target("memory") as target, contextlib.ExitStack() as programs:
        schema = bench.save("schema.ndjson", *bench.sample(0))
        bench.wall(["spice-import", "--context", target, "--schema", "write", schema])
        changes = bench.save("tip.ndjson", "xtask", "changes", "--transactions", str(CHANGES))
        with open(changes, encoding="utf-8") as lines:
            transactions = [json.loads(line)["transaction"] for line in lines if line.startswith('{"transaction"')]
        # Half of them, two of four, touch a relationship that is new to the source.
        updates = [change["updates"][0] for place, change in enumerate(transactions) if place % 4 > 1]

        def start(*command, stdin=subprocess.DEVNULL):
            process = subprocess.Popen(
                command, stdin=stdin, stdout=subprocess.PIPE, env=bench.environment, cwd=bench.folder
            )
            programs.callback(process.wait)
            programs.callback(process.terminate)
            return process

        def watch(end):
            head = bench.save("head", "spice-revision", "--context", end, "--head", "--settle", "0s").read_text()
            return start("spice-watch", "--context", end, "--since", head.strip(), "--settle", "0s")

        apply = start("spice-apply", "--context", target, stdin=subprocess.PIPE)
        # The same delivery: two Watches of PostgreSQL report a change up to a second apart.
        ends = [Arrivals(watch("source").stdout, apply.stdin), Arrivals(watch(target).stdout)]
        time.sleep(2)
        one = bench.folder / "one.ndjson"
        for update in updates:
            one.write_text(json.dumps({"update": update}) + "\n")
            bench.wall(["spice-apply", "--context", "source", "--no-trailer", str(one)])
            time.sleep(APART)
        left, came = (end.wait(len(updates)) for end in ends)
    times = [(after - before) * 1000 for before, after in zip(left, came)]
    report(f"tip: {median(times):.1f} ms, 95 % within {quantiles(times, n=20)[-1]:.1f} ms")
    yield from ()


class Arrivals:
    """When each change came out of a program, which may be the input of another one."""

    def __init__(self, output, into=None):
        self.times = []
        threading.Thread(target=self.read, args=(output, into), daemon=True).start()

    def read(self, output, into):
        for line in output:
            if line.startswith(b'{"transaction"'):
                self.times.append(time.monotonic())
            if into:
                into.write(line)
                into.flush()

    def wait(self, count):
        deadline = time.monotonic() + 10
        while len(self.times) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(self.times) >= count, f"{len(self.times)} of {count} changes arrived"
        return self.times
