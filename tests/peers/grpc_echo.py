"""A gRPC service and its client, without generated code: messages are bytes.

    grpc_echo.py serve HOST:PORT NAME       serves until killed; says `ready` on stdout
    grpc_echo.py call HOST:PORT COUNT       all four kinds of call; says `ok` when every answer was right
"""

import sys
from concurrent import futures

import grpc

SERVICE = "weft.test.Echo"


def serve(address, name):
    def unary(request, context):
        context.set_trailing_metadata((("server-name", name), ("echo-bin", b"\x00\xff")))
        if request == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "asked to fail")
        return request

    def server_stream(request, context):
        for number in range(int(request)):
            yield b"%d" % number

    def client_stream(requests, context):
        return b"%d" % sum(1 for _ in requests)

    def both(requests, context):
        for request in requests:
            yield request

    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if server.add_insecure_port(address) == 0:
        sys.exit("cannot listen on " + address)
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


def call(address, count):
    with grpc.insecure_channel(address) as channel:
        def method(kind, name):
            return getattr(channel, kind)("/%s/%s" % (SERVICE, name))

        answer, rpc = method("unary_unary", "Unary").with_call(b"hello", timeout=10)
        assert answer == b"hello", answer
        trailers = dict(rpc.trailing_metadata())
        assert trailers["echo-bin"] == b"\x00\xff" and trailers["server-name"], trailers
        try:
            method("unary_unary", "Unary")(b"fail", timeout=10)
            sys.exit("a failing call did not fail")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
            assert error.details() == "asked to fail", error
        numbers = list(method("unary_stream", "ServerStream")(b"%d" % count, timeout=20))
        assert numbers == [b"%d" % number for number in range(count)], numbers
        counted = method("stream_unary", "ClientStream")(iter([b"x"] * count), timeout=20)
        assert counted == b"%d" % count, counted
        # One message after the other: each answer must arrive before the next question is asked.
        import queue
        questions = queue.Queue()
        answers = method("stream_stream", "Both")(iter(questions.get, None), timeout=20)
        for number in range(count):
            questions.put(b"%d" % number)
            assert next(answers) == b"%d" % number
        questions.put(None)
        assert list(answers) == []
        large = b"x" * 3_000_000
        assert method("unary_unary", "Unary")(large, timeout=20) == large
    print("ok", flush=True)


def names(address, count):
    """Who answers `count` calls over one connection."""
    seen = {}
    with grpc.insecure_channel(address) as channel:
        for _ in range(count):
            _, rpc = channel.unary_unary("/%s/Unary" % SERVICE).with_call(b"x", timeout=10)
            name = dict(rpc.trailing_metadata())["server-name"]
            seen[name] = seen.get(name, 0) + 1
    print(" ".join("%s=%d" % item for item in sorted(seen.items())), flush=True)


if __name__ == "__main__":
    what, address = sys.argv[1:3]
    if what == "serve":
        serve(address, sys.argv[3])
    elif what == "call":
        call(address, int(sys.argv[3]))
    else:
        names(address, int(sys.argv[3]))
