"""A gateway with permissions: it refuses some methods with PERMISSION_DENIED and forwards all others.

    refusing.py UPSTREAM METHOD...

prints `ready PORT` and serves until its stdin ends. Messages are forwarded as bytes, unchanged.
"""

import sys
from concurrent import futures

import grpc

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
PASSED_ON = ("authorization", "io.spicedb.requestversion")


class Gateway(grpc.GenericRpcHandler):
    def __init__(self, upstream, refused):
        self.channel = grpc.insecure_channel(upstream, UNLIMITED)
        self.refused = refused

    def service(self, details):
        name = details.method.rsplit("/", 1)[-1]

        def refuse(_requests, context):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"this token may not call {name}")

        def pass_on(requests, context):
            metadata = [item for item in context.invocation_metadata() if item[0] in PASSED_ON]
            call = self.channel.stream_stream(details.method)(requests, metadata=metadata)
            context.add_callback(call.cancel)
            try:
                yield from call
            except grpc.RpcError:
                pass
            context.set_trailing_metadata(call.trailing_metadata() or ())
            if call.code() != grpc.StatusCode.OK:
                context.abort(call.code(), call.details())

        return grpc.stream_stream_rpc_method_handler(refuse if name in self.refused else pass_on)


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), options=UNLIMITED)
    server.add_generic_rpc_handlers([Gateway(sys.argv[1], sys.argv[2:])])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print("ready", port, flush=True)
    sys.stdin.read()
    server.stop(0)


if __name__ == "__main__":
    main()
