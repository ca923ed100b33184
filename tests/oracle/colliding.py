"""Writers that collide: groups that touch, delete and touch again the same fresh relationships at almost the same time.

Only the server knows which of them wins. A target must hold what the source holds after all writers have ended.
"""

import json
import os
import random
import threading
import time


class Group:
    """Threads that wait for each other before each round, and then write to the same relationships."""

    def __init__(self, number, size, args):
        self.number, self.size, self.args = number, size, args
        self.random = random.Random(f"{args.seed}/{number}")
        self.barrier = threading.Barrier(size, action=self.plan)
        self.round, self.ended, self.plans = 0, False, []
        self.began = time.monotonic()
        self.transactions = self.updates = self.refused = 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(member,), daemon=True) for member in range(size)]

    def source(self, item, operation):
        args, chance = self.args, self.random
        source = {
            "op": operation,
            "resource": f"item:{args.prefix}{self.number}-{item}",
            "relation": "holder",
            "subject": f"user:{args.prefix}{self.number}",
        }
        if operation == "touch" and chance.random() < 0.6:
            source.update(caveat="within", context={"limit": float(chance.randrange(1000))})
        if operation == "touch" and chance.random() < 0.3:
            instant = time.gmtime(time.time() + 86400 * chance.randint(2, 30))
            source["expires"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", instant)
        return source

    def plan(self):
        """The operations of each member in the next round: touch, delete, another touch, each after a gap."""
        args, chance = self.args, self.random
        stop = args.stop_file and os.path.exists(args.stop_file)
        self.ended = bool(stop) or time.monotonic() - self.began >= args.seconds
        items = [f"{self.round}-{n}" for n in range(chance.randint(1, 3))]
        # Some are touched once more much later: that state must not be mistaken for the earlier one.
        if self.round > 20 and chance.random() < args.later:
            items.append(f"{self.round - 20}-0")
        # First a touch that the others overlap; in half of the rounds it is acknowledged before they start.
        self.head_start = chance.choice([0.0, 0.0, 0.004])
        self.plans = []
        for member in range(self.size):
            steps = []
            for step in range(1 if member == 0 else chance.randint(1, 2)):
                operation = "touch" if member == 0 else chance.choice(["touch", "delete", "delete"])
                gap = chance.uniform(0, args.gap / 1000) if member or step else 0.0
                steps.append((gap, [self.source(item, operation) for item in items]))
            self.plans.append(steps)
        self.round += 1

    def run(self, member):
        import oracle

        client = oracle.Client(self.args.endpoint, self.args.token_file, self.args.ca)
        while True:
            self.barrier.wait()
            if self.ended:
                return
            if member:
                time.sleep(self.head_start)
            for gap, sources in self.plans[member]:
                time.sleep(gap)
                request = oracle.WriteRelationshipsRequest(updates=[oracle.update_of(source) for source in sources])
                try:
                    client.WriteRelationships(request, timeout=60)
                except oracle.grpc.RpcError:  # mostly a conflict; only the state of the source counts
                    with self.lock:
                        self.refused += 1
                    continue
                with self.lock:
                    self.transactions += 1
                    self.updates += len(sources)
            time.sleep(self.args.pause / 1000)


def collide(client, args):
    import oracle
    from writers import SCHEMA

    if args.write_schema:
        client.WriteSchema(oracle.WriteSchemaRequest(schema=SCHEMA))
    groups = [Group(number, 2 + number * 6 // max(1, args.groups - 1), args) for number in range(args.groups)]
    threads = [thread for group in groups for thread in group.threads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = ("round", "transactions", "updates", "refused")
    print(json.dumps({name: sum(getattr(group, name) for group in groups) for name in names}))


def steady(client, args):
    """One writer of fresh relationships, of which a share is touched again a moment later."""
    import oracle
    from writers import SCHEMA

    if args.write_schema:
        client.WriteSchema(oracle.WriteSchemaRequest(schema=SCHEMA))
    chance, recent, number, again, late = random.Random(args.seed), [], 0, 0, 0
    began = time.monotonic()
    calls = int(args.seconds * args.rate / args.batch)
    for call in range(calls):
        batch = {}
        while len(batch) < args.batch:
            if recent and chance.random() < args.share:
                name, again = chance.choice(recent), again + 1
            else:
                name, number = f"{args.prefix}{number}", number + 1
            batch[name] = {"op": "touch", "resource": f"item:{name}", "relation": "holder", "subject": "user:steady"}
            batch[name].update(caveat="within", context={"limit": float(call)})
        request = oracle.WriteRelationshipsRequest(updates=[oracle.update_of(source) for source in batch.values()])
        client.WriteRelationships(request, timeout=60)
        recent = (recent + list(batch))[-500:]
        ahead = began + (call + 1) * args.batch / args.rate - time.monotonic()
        late += ahead < 0
        time.sleep(max(0.0, ahead))
    took = time.monotonic() - began
    print(json.dumps({"updates": calls * args.batch, "again": again, "rate": round(calls * args.batch / took), "late": late}))


def add_commands(command):
    result = command("collide", collide, "groups of 2 to 8 writers that write to the same fresh relationships at once")
    result.add_argument("--groups", type=int, default=3, help="the first has 2 members, the last 8 (default 3)")
    result.add_argument("--seconds", type=float, default=5)
    result.add_argument("--stop-file", help="the writers end when this file exists")
    result.add_argument("--gap", type=float, default=20, help="maximum milliseconds between two operations of a round (default 20)")
    result.add_argument("--pause", type=float, default=20, help="milliseconds between two rounds (default 20)")
    result.add_argument("--later", type=float, default=0.1, help="share of rounds that touch again what was touched 20 rounds ago (default 0.1)")
    result.add_argument("--prefix", default="c", help="of the resources' ids (default c)")
    result.add_argument("--seed", default="0")
    result.add_argument("--write-schema", action="store_true", help="writes the writers' schema first")
    result = command("steady", steady, "one writer at a steady rate, of which a share of the updates is contended")
    result.add_argument("--seconds", type=float, default=60)
    result.add_argument("--rate", type=float, default=1000, help="updates per second (default 1000)")
    result.add_argument("--batch", type=int, default=50, help="updates per call (default 50)")
    result.add_argument("--share", type=float, default=0.01, help="share of updates that repeat a recent touch (default 0.01)")
    result.add_argument("--prefix", default="s", help="of the resources' ids (default s)")
    result.add_argument("--seed", default="0")
    result.add_argument("--write-schema", action="store_true", help="writes the writers' schema first")
