"""Real servers of a run, and networks between them and the programs."""

import contextlib
import json
import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def read(path):
    return path.read_text().strip()


class Servers:
    """The servers of one run, in a state folder of their own."""

    def __init__(self, state):
        self.state = state

    def call(self, *arguments):
        environment = dict(os.environ, SPICEDB_STATE=str(self.state))
        command = [ROOT / "tests/servers/spicedb", *arguments]
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    def start(self, name, datastore, *flags):
        self.call("start", name, "--datastore", datastore, "--", *flags)

    def analyze(self, datastore, name):
        """Does what autovacuum does within a minute. Until then PostgreSQL plans every page of an export badly."""
        if datastore == "postgres":
            self.call("sql", name, "VACUUM ANALYZE")

    def settings(self, name):
        lines = self.call("context", name).splitlines()
        settings = dict(line.split(" = ", 1) for line in lines if " = " in line)
        return {key: value.strip('"') for key, value in settings.items()}

    @contextlib.contextmanager
    def target(self, datastore, *flags):
        """A new, empty server."""
        self.start("target", datastore, *flags)
        try:
            yield "target"
        finally:
            self.call("remove", "target")

    @contextlib.contextmanager
    def far(self, name, milliseconds):
        """The flags that reach a server over a network; each direction takes half of the latency."""
        if milliseconds == 0:
            yield ["--context", name]
            return
        with Proxy(self, self.settings(name)["endpoint"]) as proxy:
            for stream in ("upstream", "downstream"):
                proxy.toxic("latency", stream, {"latency": milliseconds // 2})
            yield ["--context", name, "--endpoint", proxy.endpoint]

    @contextlib.contextmanager
    def slow_target(self, kilobytes):
        """A new PostgreSQL server whose way to its database lets so many KB a second through."""
        with self.target("postgres"):
            postgres = self.state / ".postgres"
            password = read(pathlib.Path(read(postgres / "home"), "password"))
            database = read(self.state / "target/database")
            with Proxy(self, f"127.0.0.1:{read(postgres / 'port')}") as proxy:
                uri = f"postgres://postgres:{password}@{proxy.endpoint}/{database}?sslmode=disable"
                self.call("restart", "target", "--", f"--datastore-conn-uri={uri}")
                proxy.toxic("bandwidth", "upstream", {"rate": kilobytes})
                yield ["--context", "target"]


class Proxy:
    """A toxiproxy in front of an endpoint."""

    def __init__(self, servers, upstream):
        binary = servers.call("toxiproxy").strip()
        api, self.port = servers.call("freeport", "2").split()
        self.api, self.endpoint = f"http://127.0.0.1:{api}", f"127.0.0.1:{self.port}"
        self.process = subprocess.Popen([binary, "-port", api], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.post("/proxies", {"name": "way", "listen": self.endpoint, "upstream": upstream, "enabled": True})

    def post(self, path, content):
        request = urllib.request.Request(self.api + path, json.dumps(content).encode())
        for attempt in range(50):
            try:
                return urllib.request.urlopen(request).read()
            except urllib.error.URLError:
                if attempt == 49:
                    raise
                time.sleep(0.1)

    def toxic(self, kind, stream, attributes):
        self.post("/proxies/way/toxics", {"type": kind, "stream": stream, "attributes": attributes})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
