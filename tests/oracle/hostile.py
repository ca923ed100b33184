"""A hostile server: SpiceDB's API, answered wrongly on purpose. Made from the public Python client alone.

It prints `ready PORT SINCE UNTIL`, with two past revisions, and serves until its stdin ends. The token of a client determines its treatment:

    ExportBulkRelationships=same;ReadSchema=code:14

is a list of calls, each with its treatment, and optionally `id=cafecafe`, the id of the datastore. A call that is not listed is answered properly, from a small state:
a schema, some relationships, and increasing revisions (in CockroachDB's form, which need not settle).

All connections pass a proxy that parses the frames of HTTP/2. It alters the answer of a call with the treatment
`wire:...`. The treatments:

    code:N          an error of that gRPC code
    long            an error of 60 KiB
    limit:VALUE     an error that names this limit
    noschema        NOT_FOUND, as of an empty server
    hang            no headers, ever
    headers         headers, and nothing after them
    none, end       OK without a message
    two             the message twice
    garbage         bytes that are no message
    empty           a message without a field
    blank           empty messages without end
    same            the first message without end
    fast            members of a set without end
    circle          pages whose cursors form a cycle
    unknown         a field that no version knows
    bomb            12 MiB that decode to gigabytes
    huge:MIB        a message of that size
    rows:N          a transaction of N proper relationships
    nested          a type in 200,000 others
    token:TEXT      this zedtoken, + for a space
    count:N         this number of relationships
    time:S:N        an expiry of S seconds, N nanoseconds
    many:N          wire:cut for more than N rows
    wire:reset      RST_STREAM instead of an answer
    wire:refuse     the same, "not processed"
    wire:goaway     GOAWAY
    wire:cut        the connection is closed
    wire:drip       one byte every 0.2 s
    wire:open       the answer ends without a status
"""

import base64
import functools
import itertools
import socket
import sys
import threading
import time
from concurrent import futures

import grpc
from authzed.api.v1 import (
    CheckBulkPermissionsPair,
    CheckBulkPermissionsRequest,
    CheckBulkPermissionsResponse,
    CheckBulkPermissionsResponseItem,
    Cursor,
    DiffSchemaResponse,
    ReadRelationshipsResponse,
    ReadSchemaResponse,
    ReflectSchemaResponse,
    Relationship,
    RelationshipUpdate,
    WatchResponse,
    WriteRelationshipsResponse,
    WriteSchemaResponse,
    ZedToken,
)
from authzed.api.v1.permission_service_pb2 import (
    ExportBulkRelationshipsRequest,
    ExportBulkRelationshipsResponse,
    ImportBulkRelationshipsRequest,
    ImportBulkRelationshipsResponse,
)
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

import wire

SCHEMA = """caveat limited(max int) {
\tmax < 10
}

definition group {
\trelation member: user
}

definition user {}

definition document {
\trelation viewer: user | group#member | user with limited
\tpermission view = viewer
}
"""
# The datastore id from the token of the current call: every call has its own thread.
CURRENT = threading.local()
REVISIONS = itertools.count(1700000000)


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def token(revision=None):
    revision = revision or f"{next(REVISIONS)}.0000000001"
    inner = field(1, revision.encode()) + field(2, getattr(CURRENT, "id", "feedfeed").encode())
    return ZedToken(token=base64.b64encode(field(3, inner)).decode())


def relationship(number, subject="user:eve"):
    made = Relationship(relation="viewer")
    made.resource.object_type, made.resource.object_id = "document", f"d{number}"
    kind, _, rest = subject.partition(":")
    made.subject.object.object_type = kind
    made.subject.object.object_id, _, made.subject.optional_relation = rest.partition("#")
    return made


STORED = [relationship(1), relationship(2)] + [relationship(n, "group:eng#member") for n in range(3, 15)]


def page(relationships, cursor):
    return ExportBulkRelationshipsResponse(relationships=relationships, after_result_cursor=Cursor(token=cursor))


def change(number, checkpoint=False):
    update = RelationshipUpdate(operation=RelationshipUpdate.OPERATION_TOUCH, relationship=relationship(number))
    return WatchResponse(updates=[] if checkpoint else [update], changes_through=token(), is_checkpoint=checkpoint)


def read_schema(_):
    yield ReadSchemaResponse(schema_text=SCHEMA, read_at=token())


def reflect(parameter="int"):
    answer = ReflectSchemaResponse(read_at=token())
    for name in ("document", "group", "user"):
        answer.definitions.add(name=name)
    answer.definitions[0].relations.add(name="viewer", parent_definition_name="document")
    answer.definitions[0].permissions.add(name="view", parent_definition_name="document")
    caveat = answer.caveats.add(name="limited", expression="max < 10")
    caveat.parameters.add(name="max", type=parameter, parent_caveat_name="limited")
    return answer


def export(requests):
    request = ExportBulkRelationshipsRequest.FromString(next(requests))
    if not request.optional_cursor.token:
        stored = STORED[: request.optional_limit or None]
        yield page(stored, "end")


def load(requests):
    loaded = sum(len(ImportBulkRelationshipsRequest.FromString(one).relationships) for one in requests)
    yield ImportBulkRelationshipsResponse(num_loaded=loaded)


def check(requests):
    request = CheckBulkPermissionsRequest.FromString(next(requests))
    yes = CheckBulkPermissionsResponseItem(permissionship=2)
    pairs = [CheckBulkPermissionsPair(request=item, item=yes) for item in request.items]
    yield CheckBulkPermissionsResponse(checked_at=token(), pairs=pairs)


def watch(_):
    yield change(1)
    yield change(2)
    while True:
        yield change(0, checkpoint=True)
        time.sleep(0.1)


def read(_):
    for number in range(2):
        yield ReadRelationshipsResponse(relationship=relationship(number), read_at=token())


# The proper answers, as generators of messages.
PROPER = {
    "SchemaService/ReadSchema": read_schema,
    "SchemaService/WriteSchema": lambda _: iter([WriteSchemaResponse(written_at=token())]),
    "SchemaService/ReflectSchema": lambda _: iter([reflect()]),
    "SchemaService/DiffSchema": lambda _: iter([DiffSchemaResponse(read_at=token())]),
    "PermissionsService/ExportBulkRelationships": export,
    "PermissionsService/ImportBulkRelationships": load,
    "PermissionsService/WriteRelationships": lambda _: iter([WriteRelationshipsResponse(written_at=token())]),
    "PermissionsService/CheckBulkPermissions": check,
    "PermissionsService/ReadRelationships": read,
    "WatchService/Watch": watch,
}


def first(rpc, requests):
    """The first proper message, encoded."""
    return next(PROPER[rpc](requests)).SerializeToString()


def with_relationship(rpc, encoded):
    """A message of a streaming call that holds this encoded relationship."""
    name = rpc.rpartition("/")[2]
    if name == "ExportBulkRelationships":
        return page([], "end").SerializeToString() + field(2, encoded)
    if name == "Watch":
        return change(0, checkpoint=True).SerializeToString() + field(1, b"\x08\x02" + field(2, encoded))
    return field(2, encoded)


def fail(context, code, message, details=None):
    if details is not None:
        status = Status(code=code, message=message, details=[Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=details)])
        context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
    codes = {one.value[0]: one for one in grpc.StatusCode}
    context.abort(codes[code], message)


def while_asked(context, make, pause=0.0):
    for number in itertools.count():
        if not context.is_active():
            return
        yield make(number)
        time.sleep(pause)


def claimed(size):
    """A relationship of about this many bytes."""
    made = relationship(1)
    made.optional_caveat.caveat_name = "limited"
    made.optional_caveat.context.fields["text"].string_value = "x" * size
    return made.SerializeToString()


@functools.cache
def big(rpc, size):
    name = rpc.rpartition("/")[2]
    if name in ("ExportBulkRelationships", "Watch", "ReadRelationships"):
        return with_relationship(rpc, claimed(size))
    if name == "ReadSchema":
        return ReadSchemaResponse(schema_text="x" * size, read_at=token()).SerializeToString()
    return field(1, b"x" * size)


@functools.cache
def bomb(rpc):
    """Two bytes an element, in a list of the answer."""
    name = rpc.rpartition("/")[2]
    number = {"ExportBulkRelationships": 2, "CheckBulkPermissions": 2}.get(name, 1)
    return field(number, b"") * (6 << 20)


def transaction(count):
    return field(1, change(1).updates[0].SerializeToString()) * count


def treat(rpc, how, requests, context):
    """The answers to a call, encoded, according to the token."""
    what, _, value = how.partition(":")
    name = rpc.rpartition("/")[2]
    if what == "code":
        fail(context, int(value), "hostile")
    elif what == "noschema":
        fail(context, 5, "no schema has been defined; please call WriteSchema to start")
    elif what == "long":
        fail(context, 3, "hostile " * 7000)
    elif what == "limit":
        reason = "TOO_MANY_UPDATES_IN_REQUEST" if name == "WriteRelationships" else "EXCEEDS_MAXIMUM_ALLOWABLE_LIMIT"
        info = ErrorInfo(reason=f"ERROR_REASON_{reason}", domain="authzed.com")
        info.metadata["maximum_limit_allowed"] = value
        info.metadata["maximum_updates_allowed"] = value
        fail(context, 3, "too many", info.SerializeToString())
    elif what in ("hang", "headers"):
        if what == "headers":
            context.send_initial_metadata([("hostile", "yes")])
        while context.is_active():
            time.sleep(0.05)
    elif what in ("none", "end"):
        pass
    elif what == "two":
        yield from [first(rpc, requests)] * 2
    elif what == "garbage":
        yield b"\xff\xff\xff\xff"
    elif what == "empty":
        yield b""
    elif what == "blank":
        yield from while_asked(context, lambda _: b"")
    elif what == "same":
        again = first(rpc, requests)
        yield from while_asked(context, lambda _: again, 0.01)
    elif what == "circle":
        yield from while_asked(context, lambda n: page([relationship(n % 3)], str(n % 3)).SerializeToString(), 0.01)
    elif what == "unknown":
        yield with_relationship(rpc, relationship(7).SerializeToString() + field(77, b"new"))
    elif what == "time":
        made = relationship(7)
        seconds, _, nanos = value.partition(":")
        made.optional_expires_at.seconds, made.optional_expires_at.nanos = int(seconds), int(nanos)
        yield with_relationship(rpc, made.SerializeToString())
    elif what == "bomb":
        yield bomb(rpc)
    elif what == "huge":
        yield big(rpc, int(value) << 20)
    elif what == "nested":
        yield reflect("list<" * 200000 + "int" + ">" * 200000).SerializeToString()
    elif what == "token":
        yield with_token(name, ZedToken(token=value.replace("+", " ")))
    elif what == "count":
        for _ in requests:
            pass
        yield ImportBulkRelationshipsResponse(num_loaded=int(value)).SerializeToString()
    elif what == "many":
        answer = next(load(requests))
        if answer.num_loaded > int(value):
            wire.spoil(context, "cut")
        yield answer.SerializeToString()
    elif what == "rows":
        yield transaction(int(value)) + change(0, checkpoint=True).SerializeToString()
    elif what == "fast":
        yield from while_asked(context, lambda n: ReadRelationshipsResponse(relationship=relationship(n)).SerializeToString())
    elif what == "wire":
        wire.spoil(context, value)
        yield first(rpc, requests)
    else:
        fail(context, 12, f"hostile.py does not know {how}")


def with_token(name, given):
    made = {
        "ReadSchema": lambda: ReadSchemaResponse(schema_text=SCHEMA, read_at=given),
        "WriteRelationships": lambda: WriteRelationshipsResponse(written_at=given),
        "WriteSchema": lambda: WriteSchemaResponse(written_at=given),
        "Watch": lambda: WatchResponse(updates=change(1).updates, changes_through=given),
    }
    return made[name]().SerializeToString()


class Service(grpc.GenericRpcHandler):
    """Handles every call as a stream of bytes, so that an answer can have no message, or two."""

    def service(self, handler_call_details):
        rpc = handler_call_details.method.removeprefix("/authzed.api.v1.")
        if rpc not in PROPER:
            return None
        metadata = dict(handler_call_details.invocation_metadata)
        mode = metadata.get("authorization", "").removeprefix("Bearer ")
        treatments = dict(one.split("=", 1) for one in mode.split(";") if "=" in one)
        how = treatments.get(rpc.rpartition("/")[2])

        def answer(requests, context):
            CURRENT.id = treatments.get("id", "feedfeed")
            if how:
                yield from treat(rpc, how, requests, context)
            else:
                for message in PROPER[rpc](requests):
                    if not context.is_active():
                        return
                    yield message.SerializeToString()

        return grpc.stream_stream_rpc_method_handler(answer)


def main():
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=400), options=options)
    server.add_generic_rpc_handlers([Service()])
    upstream = server.add_insecure_port("127.0.0.1:0")
    server.start()
    listener = socket.create_server(("127.0.0.1", 0), backlog=200)
    threading.Thread(target=wire.proxy, args=(listener, upstream), daemon=True).start()
    print("ready", listener.getsockname()[1], token().token, token().token, flush=True)
    sys.stdin.read()
    server.stop(0)


if __name__ == "__main__":
    main()
