"""An independent oracle of what a SpiceDB server holds, made from the public Python client alone.

It shares no code and no format with the suite. A relationship is one line of JSON with sorted keys, its canonical form:

    {"caveat":"limited","context":{"max":3.0},"expires":"2027-01-01T00:00:00.123456Z",
     "relation":"viewer","resource":"document:readme","subject":"group:eng#member"}

An empty context equals none and is left out, like every key that has no value. Two dumps can be compared with cmp.
"""

import argparse
import contextlib
import datetime
import io
import itertools
import json
import signal
import sys
import traceback

import grpc
from authzed.api.v1 import (
    Consistency,
    ContextualizedCaveat,
    DeleteRelationshipsRequest,
    ObjectReference,
    ReadRelationshipsRequest,
    ReadSchemaRequest,
    Relationship,
    RelationshipFilter,
    RelationshipUpdate,
    SubjectFilter,
    SubjectReference,
    SyncClient,
    TokenAuthorization,
    WriteRelationshipsRequest,
    WriteSchemaRequest,
    ZedToken,
)
from authzed.api.v1.experimental_service_pb2 import BulkExportRelationshipsRequest
from authzed.api.v1.permission_service_pb2 import (
    ExportBulkRelationshipsRequest,
    ImportBulkRelationshipsRequest,
)

DIGITS = {"ns": 9, "us": 6, "s": 0}
OPERATIONS = {
    "create": RelationshipUpdate.OPERATION_CREATE,
    "touch": RelationshipUpdate.OPERATION_TOUCH,
    "delete": RelationshipUpdate.OPERATION_DELETE,
}
EPOCH = datetime.datetime(1970, 1, 1)


class Client(SyncClient):
    """The public client without its default limit of 4 MiB for what it receives."""

    def __init__(self, endpoint, token_file, ca=None):
        with open(token_file, encoding="ascii") as file:
            token = file.read().strip()
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        options.append(("grpc.use_local_subchannel_pool", 1))  # no state of a server that was restarted
        if ca:
            with open(ca, "rb") as file:
                credentials = grpc.ssl_channel_credentials(root_certificates=file.read())
            self.channel = grpc.secure_channel(endpoint, credentials, options)
        else:
            self.channel = grpc.insecure_channel(endpoint, options)
        self.init_stubs(grpc.intercept_channel(self.channel, TokenAuthorization(token)))


# ---- the canonical form --------------------------------------------------------------------------


def plain(value):
    """A caveat context's value as JSON; -0 equals 0."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {key: plain(field) for key, field in value.struct_value.fields.items()}
    if kind == "list_value":
        return [plain(item) for item in value.list_value.values]
    if kind == "number_value":
        return value.number_value + 0.0
    return None if kind in (None, "null_value") else getattr(value, kind)


def time_text(timestamp, precision):
    text = (EPOCH + datetime.timedelta(seconds=timestamp.seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{timestamp.nanos:09d}"[: DIGITS[precision]]
    return f"{text.rjust(19, '0')}{'.' if fraction else ''}{fraction}Z"


def canonical(relationship, precision="ns"):
    resource, subject = relationship.resource, relationship.subject
    on = f"#{subject.optional_relation}" if subject.optional_relation else ""
    result = {
        "resource": f"{resource.object_type}:{resource.object_id}",
        "relation": relationship.relation,
        "subject": f"{subject.object.object_type}:{subject.object.object_id}{on}",
    }
    if relationship.HasField("optional_caveat"):
        result["caveat"] = relationship.optional_caveat.caveat_name
        fields = relationship.optional_caveat.context.fields
        if fields:
            result["context"] = {key: plain(value) for key, value in fields.items()}
    if relationship.HasField("optional_expires_at"):
        result["expires"] = time_text(relationship.optional_expires_at, precision)
    return result


def line(canonical_relationship):
    text = json.dumps(canonical_relationship, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def key(canonical_relationship):
    return tuple(canonical_relationship[part] for part in ("resource", "relation", "subject"))


def relationship_of(source):
    """A relationship from its canonical form."""
    resource_type, resource_id = source["resource"].split(":", 1)
    subject, _, subject_relation = source["subject"].partition("#")
    subject_type, subject_id = subject.split(":", 1)
    result = Relationship(
        resource=ObjectReference(object_type=resource_type, object_id=resource_id),
        relation=source["relation"],
        subject=SubjectReference(
            object=ObjectReference(object_type=subject_type, object_id=subject_id),
            optional_relation=subject_relation,
        ),
    )
    if source.get("caveat"):
        caveat = ContextualizedCaveat(caveat_name=source["caveat"])
        caveat.context.update(source.get("context") or {})
        result.optional_caveat.CopyFrom(caveat)
    if source.get("expires"):
        instant, _, fraction = source["expires"].rstrip("Z").partition(".")
        seconds = (datetime.datetime.strptime(instant, "%Y-%m-%dT%H:%M:%S") - EPOCH).total_seconds()
        result.optional_expires_at.seconds = int(seconds)
        result.optional_expires_at.nanos = int(fraction.ljust(9, "0")[:9] or 0)
    return result


def update_of(source):
    """An update from a canonical relationship with an "op"; a delete has neither caveat nor expiry."""
    bare = source["op"] == "delete"
    kept = {part: source[part] for part in ("resource", "relation", "subject")} if bare else source
    return RelationshipUpdate(operation=OPERATIONS[source["op"]], relationship=relationship_of(kept))


# ---- commands ------------------------------------------------------------------------------------


def consistency(args):
    if getattr(args, "at", None):
        return Consistency(at_exact_snapshot=ZedToken(token=args.at))
    return Consistency(fully_consistent=True)


def dump(client, args):
    at = consistency(args)
    pages = client.ExportBulkRelationships(ExportBulkRelationshipsRequest(consistency=at, optional_limit=2000))
    try:
        first = next(pages, None)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNIMPLEMENTED:
            raise
        # SpiceDB v1.35 and older.
        pages = client.BulkExportRelationships(BulkExportRelationshipsRequest(consistency=at, optional_limit=2000))
        first = next(pages, None)
    lines = [
        line(canonical(relationship, args.expiry_precision))
        for page in itertools.chain([first] if first else [], pages)
        for relationship in page.relationships
    ]
    lines.sort()
    if args.output:
        with open(args.output, "wb") as out:
            out.writelines(text + b"\n" for text in lines)
    else:
        sys.stdout.buffer.writelines(text + b"\n" for text in lines)


def batches(updates, most):
    """Cuts updates into calls: by count, by bytes, and before a relationship's second update."""
    batch, seen, size = [], set(), 0
    for source in updates:
        update = update_of(source)
        if batch and (len(batch) >= most or size > 3_000_000 or key(source) in seen):
            yield batch
            batch, seen, size = [], set(), 0
        batch.append(update)
        seen.add(key(source))
        size += update.ByteSize()
    if batch:
        yield batch


def load(client, args):
    with open(args.file, encoding="utf-8") if args.file != "-" else sys.stdin as file:
        sources = (json.loads(text) for text in file if text.strip())
        if args.bulk:
            pages = (
                ImportBulkRelationshipsRequest(relationships=[update.relationship for update in batch])
                for batch in batches(({"op": "create", **source} for source in sources), args.batch)
            )
            loaded = client.ImportBulkRelationships(pages).num_loaded
            print(f"oracle: loaded {loaded}", file=sys.stderr)
            return
        token = None
        for batch in batches(sources, args.batch):
            token = client.WriteRelationships(WriteRelationshipsRequest(updates=batch)).written_at.token
        if token:
            print(token)


def lookup(client, args):
    resource, _, rest = args.relationship.partition("#")
    relation, _, subject = rest.partition("@")
    wanted = relationship_of({"resource": resource, "relation": relation, "subject": subject})
    filter_ = RelationshipFilter(
        resource_type=wanted.resource.object_type,
        optional_resource_id=wanted.resource.object_id,
        optional_relation=wanted.relation,
        optional_subject_filter=SubjectFilter(
            subject_type=wanted.subject.object.object_type,
            optional_subject_id=wanted.subject.object.object_id,
            optional_relation=SubjectFilter.RelationFilter(relation=wanted.subject.optional_relation),
        ),
    )
    request = ReadRelationshipsRequest(consistency=consistency(args), relationship_filter=filter_)
    found = [response.relationship for response in client.ReadRelationships(request)]
    for relationship in found:
        print(line(canonical(relationship, args.expiry_precision)).decode())
    return 0 if found else 1


def delete_type(client, args):
    filter_ = RelationshipFilter(resource_type=args.type)
    print(client.DeleteRelationships(DeleteRelationshipsRequest(relationship_filter=filter_)).deleted_at.token)


def schema_write(client, args):
    with open(args.file, encoding="utf-8") if args.file != "-" else sys.stdin as file:
        print(client.WriteSchema(WriteSchemaRequest(schema=file.read())).written_at.token)


def schema_read(client, _args):
    sys.stdout.write(client.ReadSchema(ReadSchemaRequest()).schema_text)


def head(client, _args):
    print(client.ReadSchema(ReadSchemaRequest()).read_at.token)


def arguments(given):
    import colliding
    import writers

    parser = argparse.ArgumentParser(prog="oracle", description=__doc__.split("\n")[0])
    parser.add_argument("--endpoint", help="HOST:PORT of the server")
    parser.add_argument("--token-file")
    parser.add_argument("--ca", help="certificate of the CA; without it plaintext")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name, function, help_, *files):
        result = commands.add_parser(name, help=help_)
        result.set_defaults(function=function)
        for file in files:
            result.add_argument(file)
        return result

    def reading(result):
        result.add_argument("--at", help="zedtoken of the snapshot to read; without it, the newest state")
        result.add_argument("--expiry-precision", choices=DIGITS, default="us")
        return result

    reading(command("dump", dump, "all relationships, canonical and sorted")).add_argument("--output")
    reading(command("lookup", lookup, "one relationship; exit 1 if it is not there", "relationship"))
    loading = command("load", load, 'writes lines of canonical relationships with an "op"; prints the last zedtoken', "file")
    loading.add_argument("--batch", type=int, default=1000, help="updates per call (default 1000)")
    loading.add_argument("--bulk", action="store_true", help="imports them all in one transaction")
    command("delete-type", delete_type, "deletes all relationships of a resource type", "type")
    command("schema-write", schema_write, "writes a schema; prints the zedtoken", "file")
    command("schema-read", schema_read, "prints the schema")
    command("head", head, "prints the zedtoken of the newest revision")
    writers.add_commands(command)
    colliding.add_commands(command)
    return parser.parse_args(given)


def run(given):
    """Runs one command; returns its exit code."""
    args = arguments(given)
    client = None
    if args.command != "expected":
        if not (args.endpoint and args.token_file):
            sys.exit("oracle: --endpoint and --token-file are needed")
        client = Client(args.endpoint, args.token_file, args.ca)
    try:
        return args.function(client, args) or 0
    except grpc.RpcError as error:
        print(f"oracle: {args.command}: {error.code().name}: {error.details()}", file=sys.stderr)
        return 2
    finally:
        if client:
            client.channel.close()


def serve():
    """Reads JSON arrays of arguments, one per line, and answers each with code, stdout and stderr, until stdin ends."""
    for text in sys.stdin:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = run(json.loads(text))
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else print(end.code, file=err) or 1
            except Exception:  # noqa: BLE001 - the answer contains it, whatever it is
                traceback.print_exc()
                code = 3
        texts = {name: file.buffer.getvalue().decode() for name, file in (("stdout", out), ("stderr", err))}
        print(json.dumps({"code": code, **texts}), flush=True)


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    return serve() if sys.argv[1:] == ["serve"] else run(sys.argv[1:])


if __name__ == "__main__":
    sys.modules["oracle"] = sys.modules["__main__"]
    sys.exit(main())
