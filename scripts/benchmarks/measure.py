"""Programs run and measured."""

import json
import math
import os
import subprocess
import sys
import time

from benchmarks.servers import ROOT

PROGRAMS = ROOT / "target/release"


def report(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Bench:
    """One run: its options, servers, folder and the environment of the programs."""

    def __init__(self, options, servers, folder):
        self.options, self.servers, self.folder = options, servers, folder
        # Of each program, the most memory of any of its runs, in MiB.
        self.peaks = {}
        self.environment = {
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "HOME": str(folder),
            "SPICE_CONTEXTS": str(servers.state / "contexts.toml"),
        }

    def run(self, *commands, environment=None):
        """Runs commands joined by pipes. Returns wall seconds and for each (CPU seconds, peak MiB)."""
        environment = self.environment | (environment or {})
        began = time.monotonic()
        processes, stdin = [], subprocess.DEVNULL
        for place, command in enumerate(commands):
            last = place == len(commands) - 1
            with open(self.folder / f"{place}.log", "wb") as log:
                stdout = log if last else subprocess.PIPE
                process = subprocess.Popen(
                    command, stdin=stdin, stdout=stdout, stderr=log, env=environment, cwd=self.folder
                )
            if stdin is not subprocess.DEVNULL:
                stdin.close()
            stdin = process.stdout
            processes.append(process)
        usages = []
        for place, process in enumerate(processes):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                log = (self.folder / f"{place}.log").read_text()[-2000:]
                sys.exit(f"bench: {commands[place][0]} ended with {process.returncode}:\n{log}")
            usages.append((usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024))
            program = commands[place][0]
            self.peaks[program] = max(usages[-1][1], self.peaks.get(program, 0))
        return time.monotonic() - began, usages

    def wall(self, *commands):
        return self.run(*commands)[0]

    def floor(self, *commands):
        """Seconds of raw clients at the same time. They retry nothing: too many calls in flight may end one."""
        clients = [
            subprocess.Popen([PROGRAMS / "floor", *command], env=self.environment, stdout=subprocess.PIPE, text=True)
            for command in commands
        ]
        outputs = [client.communicate()[0] for client in clients]
        if any(client.returncode for client in clients):
            return math.inf
        return max(json.loads(output)["seconds"] for output in outputs)

    def save(self, name, *command):
        """What a program prints, in a file."""
        path = self.folder / name
        with open(path, "wb") as out:
            subprocess.run(command, env=self.environment, check=True, stdout=out)
        return path

    def source(self):
        report("starting the source and loading it")
        self.servers.start("source", self.options.source)
        self.wall(self.sample(self.options.relationships), ["spice-import", "--context", "source"])
        self.servers.analyze(self.options.source, "source")

    @staticmethod
    def sample(count):
        # Full seconds: zed keeps milliseconds of an expiry, so its restore would change all finer ones.
        return ["xtask", "sample", "--relationships", str(count), "--portable"]

    def rounds(self, name, ours, other):
        """Both sides, taking turns: pairs of what they return."""
        pairs = []
        for number in range(self.options.rounds):
            pairs.append((ours(), other()))
            # Databases make overlapping calls begin again, and give up in the end: raw clients do not repeat them.
            failures = 0
            while not math.isfinite(pairs[-1][1]):
                failures += 1
                if failures == 5:
                    sys.exit(f"bench: {name}: the floor failed five times with the setting that was best")
                report(f"{name}, round {number + 1}: the floor failed, again")
                pairs[-1] = (pairs[-1][0], other())
            report(f"{name}, round {number + 1}: ours {pairs[-1][0]:.2f}, other {pairs[-1][1]:.2f}")
        return pairs

    def best(self, name, settings, send):
        """The setting with which a raw client is fastest."""
        walls = {}
        for setting in settings:
            walls[setting] = send(*setting)
            report(f"{name}, floor with {' x '.join(setting)}: {walls[setting]:.2f} s")
        return min(walls, key=walls.get)
