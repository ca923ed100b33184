"""Concurrent writers that journal every acknowledged write, and the state that results from a journal.

Each writer owns the resources `PREFIX<writer>-<n>`, and sends its next transaction after the last was acknowledged:
the journal's order per writer is the order of its writes, and the last update of a relationship is what must be there.
"""

import json
import os
import random
import sys
import threading
import time

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../data/writers.zed"), encoding="utf-8") as file:
    SCHEMA = file.read()


class Writer(threading.Thread):
    def __init__(self, number, args, journal):
        super().__init__(daemon=True)
        self.number, self.args, self.journal = number, args, journal
        self.random = random.Random(f"{args.seed}/{number}")
        self.delete = None
        self.there, self.transactions, self.updates, self.slowest, self.failure = set(), 0, 0, 0.0, None

    def next_update(self, n):
        args, chance = self.args, self.random
        source = {
            "resource": f"{args.resource}:{args.prefix}{self.number}-{n}",
            "relation": args.relation,
            "subject": f"{args.subject}:{args.prefix}{self.number}",
        }
        if n in self.there and chance.random() < 0.4:
            return {"op": "delete", **source}
        if args.caveat and chance.random() < 0.4:
            source["caveat"] = args.caveat
            if chance.random() < 0.8:
                source["context"] = {args.context_key: float(chance.randrange(1000))}
        if args.expiry != "none" and chance.random() < 0.3:
            instant = time.gmtime(time.time() + 86400 * chance.randint(2, 30))
            fraction = f"{chance.randrange(10**9):09d}"[: {"s": 0, "us": 6, "ns": 9}[args.expiry]]
            source["expires"] = time.strftime("%Y-%m-%dT%H:%M:%S", instant) + (f".{fraction}Z" if fraction else "Z")
        return {"op": "create" if n not in self.there and chance.random() < 0.5 else "touch", **source}

    def bulk_delete(self):
        """One DeleteRelationships of all its resources whose number begins with a given digit."""
        import oracle

        digit = str(self.random.randint(1, 9))
        name = f"{self.args.prefix}{self.number}"
        self.delete = oracle.DeleteRelationshipsRequest(
            relationship_filter=oracle.RelationshipFilter(
                resource_type=self.args.resource,
                optional_resource_id_prefix=f"{name}-{digit}",
                optional_relation=self.args.relation,
            ),
        )
        return [n for n in self.there if str(n).startswith(digit)]

    def transaction(self, client, request):
        if self.args.bulk_deletes and self.random.random() < self.args.bulk_deletes:
            keys = self.bulk_delete()
            name = f"{self.args.prefix}{self.number}"
            sources = [
                {
                    "op": "delete",
                    "resource": f"{self.args.resource}:{name}-{n}",
                    "relation": self.args.relation,
                    "subject": f"{self.args.subject}:{name}",
                }
                for n in keys
            ]
            return self.journaled(client, request, keys, sources)
        keys = self.random.sample(range(self.args.keys), self.random.randint(1, min(self.args.updates, self.args.keys)))
        return self.journaled(client, request, keys, [self.next_update(n) for n in keys])

    def journaled(self, client, request, keys, sources):
        sent = time.time()
        entry = {"writer": self.number, "transaction": self.transactions, "sent": sent, "acknowledged": None}
        try:
            entry["token"] = request(client, sources)
            entry["acknowledged"] = time.time()
        finally:
            self.journal({**entry, "updates": sources})
        self.slowest = max(self.slowest, entry["acknowledged"] - sent)
        self.transactions += 1
        self.updates += len(sources)
        for n, source in zip(keys, sources):
            (self.there.discard if source["op"] == "delete" else self.there.add)(n)

    def run(self):
        import oracle

        def request(client, sources):
            bulk, self.delete = self.delete, None
            call = oracle.WriteRelationshipsRequest(updates=[oracle.update_of(source) for source in sources])
            if self.args.metadata:
                call.optional_transaction_metadata.update({"writer": self.number, "transaction": self.transactions})
            for attempts_left in reversed(range(20)):
                try:
                    if bulk:
                        return client.DeleteRelationships(bulk, timeout=60).deleted_at.token
                    return client.WriteRelationships(call, timeout=60).written_at.token
                except oracle.grpc.RpcError as error:  # aborted: rolled back because of a conflict, so the result is known
                    if error.code() != oracle.grpc.StatusCode.ABORTED or not attempts_left:
                        raise

        args = self.args
        client = oracle.Client(args.endpoint, args.token_file, args.ca)
        began = time.monotonic()
        try:
            while time.monotonic() - began < args.seconds and not (args.stop_file and os.path.exists(args.stop_file)):
                self.transaction(client, request)
                if args.rate:
                    time.sleep(max(0.0, began + self.transactions / args.rate - time.monotonic()))
        except Exception as error:  # noqa: BLE001 - after any failure this write is not acknowledged
            code = getattr(error, "code", None)
            self.failure = f"{code().name}: {error.details()}" if code else repr(error)


def write(client, args):
    import oracle

    if args.write_schema:
        client.WriteSchema(oracle.WriteSchemaRequest(schema=SCHEMA))
    lock = threading.Lock()
    with open(args.journal, "w", encoding="utf-8") as file:

        def journal(entry):
            text = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
            with lock:
                file.write(text + "\n")
                file.flush()

        writers = [Writer(number, args, journal) for number in range(args.writers)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
    summary = {
        "transactions": sum(writer.transactions for writer in writers),
        "updates": sum(writer.updates for writer in writers),
        "slowestSeconds": round(max(writer.slowest for writer in writers), 3),
    }
    print(json.dumps(summary))
    for writer in writers:
        if writer.failure:
            print(f"oracle: writer {writer.number} ended with a write that was not acknowledged: {writer.failure}", file=sys.stderr)
    return 1 if any(writer.failure for writer in writers) else 0


def expected(_client, args):
    """Prints what a server must hold of the writers' relationships, as dump would."""
    import oracle

    final, open_ = {}, set()
    with open(args.journal, encoding="utf-8") as file:
        for text in file:
            entry = json.loads(text)
            for source in entry["updates"]:
                if not entry["acknowledged"]:
                    open_.add(oracle.key(source))
                final[oracle.key(source)] = {name: value for name, value in source.items() if name != "op"}
                if source["op"] == "delete":
                    del final[oracle.key(source)]
    lines = []
    for source in final.values():
        if oracle.key(source) not in open_:
            lines.append(oracle.line(oracle.canonical(oracle.relationship_of(source), args.expiry_precision)))
    sys.stdout.buffer.writelines(text + b"\n" for text in sorted(lines))
    for resource, relation, subject in sorted(open_):
        print(f"oracle: left out, its last write was not acknowledged: {resource}#{relation}@{subject}", file=sys.stderr)
    return 1 if open_ else 0


def add_commands(command):
    result = command("writers", write, "concurrent writers; every acknowledged transaction goes to the journal")
    result.add_argument("--writers", type=int, default=4)
    result.add_argument("--seconds", type=float, default=5)
    result.add_argument("--stop-file", help="the writers end when this file exists")
    result.add_argument("--journal", required=True)
    result.add_argument("--rate", type=float, default=0, help="transactions per second and writer (default: no limit)")
    result.add_argument("--updates", type=int, default=50, help="maximum updates per transaction (default 50)")
    result.add_argument("--keys", type=int, default=1000, help="resources that a writer owns (default 1000)")
    result.add_argument("--prefix", default="w", help="of the resources' ids (default w)")
    result.add_argument("--seed", default="0")
    result.add_argument("--resource", default="item")
    result.add_argument("--relation", default="holder")
    result.add_argument("--subject", default="user")
    result.add_argument("--caveat", default="within", help="'' for none")
    result.add_argument("--context-key", default="limit", help="the caveat's parameter, a number")
    result.add_argument("--expiry", choices=("none", "s", "us", "ns"), default="s", help="precision of expiries (default s)")
    result.add_argument("--bulk-deletes", type=float, default=0, help="share of DeleteRelationships calls (default 0)")
    result.add_argument("--metadata", action="store_true", help="the metadata of each transaction names its writer")
    result.add_argument("--write-schema", action="store_true", help="writes a schema that fits the defaults first")
    result = command("expected", expected, "what the server must hold after the journal, as dump would print it")
    result.add_argument("--journal", required=True)
    result.add_argument("--expiry-precision", choices=("ns", "us", "s"), default="us")
