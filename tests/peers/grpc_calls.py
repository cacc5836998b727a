"""Calls of every kind by gRPC's own client and service, without generated code: messages are bytes.

    grpc_calls.py serve HOST:PORT            serves until killed; says `ready` on stdout
    grpc_calls.py call HOST:PORT DEAD:PORT   every case, through proxies: `NAME ok`, or `NAME failed: why`, one a line
"""

import os
import queue
import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "weft.test.Calls"
LONG = 16 << 20
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# How long whatever has to happen may take on a busy machine.
DEADLINE = 30

# What became of calls that wait, by the name they were given.
ended = {}


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method.rsplit("/", 1)[1]
        kind = {"Unary": grpc.unary_unary_rpc_method_handler, "Stream": grpc.unary_stream_rpc_method_handler,
                "Collect": grpc.stream_unary_rpc_method_handler, "Both": grpc.stream_stream_rpc_method_handler}
        for word, handler in kind.items():
            if name.startswith(word):
                return handler(getattr(self, name)) if hasattr(self, name) else None
        return None

    def Unary(self, request, context):
        return request

    def UnaryMetadata(self, request, context):
        asked = [pair for pair in context.invocation_metadata() if pair.key.startswith("x-")]
        context.send_initial_metadata(tuple((pair.key, pair.value) for pair in asked))
        context.set_trailing_metadata(tuple(("t-" + pair.key, pair.value) for pair in asked))
        return request

    def UnaryAbort(self, request, context):
        code = next(code for code in grpc.StatusCode if code.value[0] == int(request))
        context.set_trailing_metadata((("x-detail-bin", b"\x00\x01\xff"),))
        context.abort(code, "caf\u00e9 %25 \u2713")

    def UnaryRemaining(self, request, context):
        return b"%d" % int(context.time_remaining() * 1000)

    def UnaryWait(self, request, context):
        over = threading.Event()
        context.add_callback(over.set)
        ended[request] = over
        over.wait(DEADLINE)
        return b"too late"

    def UnaryEnded(self, request, context):
        began = time.monotonic()
        while request not in ended and time.monotonic() - began < DEADLINE:
            time.sleep(0.01)
        return b"yes" if ended[request].wait(DEADLINE) else b"no"

    def UnaryCompressed(self, request, context):
        context.set_compression(grpc.Compression.Gzip)
        return request

    def UnaryUserAgent(self, request, context):
        return dict(context.invocation_metadata())["user-agent"].encode()

    def UnaryDie(self, request, context):
        os._exit(1)

    def Stream(self, request, context):
        for number in range(int(request)):
            yield b"%d" % number

    def StreamLong(self, request, context):
        for _ in range(int(request)):
            yield b"x" * 65536

    def StreamNothing(self, request, context):
        return iter(())

    def StreamAbort(self, request, context):
        yield b"one"
        context.abort(grpc.StatusCode.DATA_LOSS, "behind one")

    def StreamWait(self, request, context):
        over = threading.Event()
        context.add_callback(over.set)
        ended[request] = over
        yield b"one"
        over.wait(DEADLINE)

    def StreamDie(self, request, context):
        yield b"one"
        # Until the client has it.
        time.sleep(0.3)
        os._exit(1)

    def Collect(self, requests, context):
        return b"%d" % sum(1 for _ in requests)

    def CollectFirst(self, requests, context):
        return next(requests)

    def CollectWait(self, requests, context):
        over = threading.Event()
        context.add_callback(over.set)
        ended[next(requests)] = over
        over.wait(DEADLINE)
        return b"too late"

    def Both(self, requests, context):
        yield from requests

    def BothEarly(self, requests, context):
        context.send_initial_metadata((("x-early", "1"),))
        yield b"before any question"
        yield from requests


def serve(address):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=OPTIONS)
    server.add_generic_rpc_handlers((Service(),))
    if server.add_insecure_port(address) == 0:
        sys.exit("cannot listen on " + address)
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


class Cases:
    def __init__(self, channel, dead, dying):
        self.channel, self.dead, self.dying = channel, dead, dying

    def method(self, name, channel=None):
        kinds = {"Unary": "unary_unary", "Stream": "unary_stream", "Collect": "stream_unary", "Both": "stream_stream"}
        kind = next(kind for word, kind in kinds.items() if name.startswith(word))
        return getattr(channel or self.channel, kind)("/%s/%s" % (SERVICE, name))

    def code(self, call):
        try:
            call()
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    def unary(self):
        assert self.method("Unary")(b"hello", timeout=DEADLINE) == b"hello"

    def empty_message(self):
        assert self.method("Unary")(b"", timeout=DEADLINE) == b""

    def server_streaming(self):
        numbers = list(self.method("Stream")(b"1000", timeout=DEADLINE))
        assert numbers == [b"%d" % number for number in range(1000)]

    def server_streaming_of_nothing(self):
        assert list(self.method("StreamNothing")(b"", timeout=DEADLINE)) == []

    def client_streaming(self):
        assert self.method("Collect")(iter([b"x"] * 1000), timeout=DEADLINE) == b"1000"

    def client_streaming_of_nothing(self):
        assert self.method("Collect")(iter(()), timeout=DEADLINE) == b"0"

    def ping_pong(self):
        questions = queue.Queue()
        answers = self.method("Both")(iter(questions.get, None), timeout=DEADLINE)
        for number in range(1000):
            questions.put(b"%d" % number)
            assert next(answers) == b"%d" % number
        questions.put(None)
        assert list(answers) == []

    def initial_metadata_before_any_question(self):
        questions = queue.Queue()
        answers = self.method("BothEarly")(iter(questions.get, None), timeout=DEADLINE)
        assert dict(answers.initial_metadata())["x-early"] == "1"
        assert next(answers) == b"before any question"
        questions.put(None)
        assert list(answers) == []

    def metadata_both_ways(self):
        sent = (("x-a", "1"), ("x-b-bin", bytes(range(256))), ("x-a", "2"), ("x-c-bin", b""), ("x-d", "a,b"))
        answer, rpc = self.method("UnaryMetadata").with_call(b"m", metadata=sent, timeout=DEADLINE)
        initial = [pair for pair in rpc.initial_metadata() if pair.key.startswith("x-") and pair.key != "x-request-id"]
        initial = [tuple(pair) for pair in initial if not pair.key.startswith("x-forwarded")]
        assert sorted(initial) == sorted(sent), initial
        trailing = [tuple(pair) for pair in rpc.trailing_metadata()]
        for key, value in sent:
            assert ("t-" + key, value) in trailing, trailing

    def metadata_of_7_kib(self):
        sent = (("x-long", "v" * 7000),)
        _, rpc = self.method("UnaryMetadata").with_call(b"m", metadata=sent, timeout=DEADLINE)
        assert dict(rpc.initial_metadata())["x-long"] == "v" * 7000

    def every_status(self):
        for code in grpc.StatusCode:
            if code is grpc.StatusCode.OK:
                continue
            try:
                self.method("UnaryAbort")(b"%d" % code.value[0], timeout=DEADLINE)
                raise AssertionError("no error")
            except grpc.RpcError as error:
                assert error.code() == code and error.details() == "caf\u00e9 %25 \u2713", error
                assert dict(error.trailing_metadata())["x-detail-bin"] == b"\x00\x01\xff"

    def status_behind_messages(self):
        answers = self.method("StreamAbort")(b"", timeout=DEADLINE)
        assert next(answers) == b"one"
        assert self.code(lambda: next(answers)) == grpc.StatusCode.DATA_LOSS
        assert answers.details() == "behind one"

    def unknown_method(self):
        code = self.code(lambda: self.method("UnaryUnknown")(b"", timeout=DEADLINE))
        assert code == grpc.StatusCode.UNIMPLEMENTED, code

    def deadline_is_seen(self):
        left = int(self.method("UnaryRemaining")(b"", timeout=100))
        # It is rounded up on its way.
        assert 70_000 < left <= 101_000, left

    def deadline_ends_both_sides(self):
        code = self.code(lambda: self.method("UnaryWait")(b"deadline", timeout=0.3))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED, code
        assert self.method("UnaryEnded")(b"deadline", timeout=DEADLINE) == b"yes"

    def deadline_of_a_stream(self):
        answers = self.method("StreamWait")(b"stream deadline", timeout=0.5)
        assert next(answers) == b"one"
        assert self.code(lambda: next(answers)) == grpc.StatusCode.DEADLINE_EXCEEDED
        assert self.method("UnaryEnded")(b"stream deadline", timeout=DEADLINE) == b"yes"

    def cancelled_unary(self):
        call = self.method("UnaryWait").future(b"cancel", timeout=DEADLINE)
        while not call.is_active():
            pass
        threading.Timer(0.2, call.cancel).start()
        assert self.method("UnaryEnded")(b"cancel", timeout=DEADLINE) == b"yes"
        assert call.cancelled()

    def cancelled_server_streaming(self):
        answers = self.method("StreamWait")(b"cancel stream", timeout=DEADLINE)
        assert next(answers) == b"one"
        answers.cancel()
        assert self.method("UnaryEnded")(b"cancel stream", timeout=DEADLINE) == b"yes"

    def cancelled_client_streaming(self):
        questions = queue.Queue()
        questions.put(b"cancel asking")
        call = self.method("CollectWait").future(iter(questions.get, None), timeout=DEADLINE)
        while not self.method("Unary")(b"x", timeout=DEADLINE):
            pass
        threading.Timer(0.2, call.cancel).start()
        assert self.method("UnaryEnded")(b"cancel asking", timeout=DEADLINE) == b"yes"
        questions.put(None)

    def channel_closed_within_a_call(self):
        with grpc.insecure_channel(self.address) as channel:
            answers = self.method("StreamWait", channel)(b"closed", timeout=DEADLINE)
            assert next(answers) == b"one"
        assert self.method("UnaryEnded")(b"closed", timeout=DEADLINE) == b"yes"

    def answer_before_all_was_asked(self):
        questions = queue.Queue()
        questions.put(b"first")
        assert self.method("CollectFirst")(iter(questions.get, None), timeout=DEADLINE) == b"first"
        questions.put(None)

    def message_of_16_mib(self):
        large = os.urandom(1 << 20) * 16
        assert self.method("Unary")(large, timeout=DEADLINE) == large

    def messages_of_1_mib_both_ways(self):
        large = [bytes([number]) * (1 << 20) for number in range(16)]
        assert list(self.method("Both")(iter(large), timeout=DEADLINE)) == large

    def stream_of_16_mib(self):
        assert sum(len(part) for part in self.method("StreamLong")(b"256", timeout=DEADLINE)) == LONG

    def compressed(self):
        text = b"compress me " * 1000
        answer = self.method("UnaryCompressed")(text, timeout=DEADLINE, compression=grpc.Compression.Gzip)
        assert answer == text

    def user_agent(self):
        assert self.method("UnaryUserAgent")(b"", timeout=DEADLINE).startswith(b"grpc-python/")

    def slow_reader_and_its_neighbours(self):
        slow = self.method("StreamLong")(b"512", timeout=DEADLINE)
        assert len(next(slow)) == 65536
        for number in range(50):
            assert self.method("Unary")(b"%d" % number, timeout=DEADLINE) == b"%d" % number
        assert sum(len(part) for part in slow) == 511 * 65536

    def many_calls_at_once(self):
        calls = [self.method("Unary").future(b"%d" % number, timeout=DEADLINE) for number in range(200)]
        assert [call.result() for call in calls] == [b"%d" % number for number in range(200)]

    def many_streams_at_once(self):
        calls = [self.method("Stream")(b"50", timeout=DEADLINE) for _ in range(30)]
        wanted = [b"%d" % number for number in range(50)]
        assert all(list(call) == wanted for call in calls)

    def many_channels(self):
        channels = [grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(20)]
        for channel in channels:
            assert self.method("Unary", channel)(b"x", timeout=DEADLINE) == b"x"
        for channel in channels:
            channel.close()

    def nobody_there(self):
        with grpc.insecure_channel(self.dead) as channel:
            try:
                self.method("Unary", channel)(b"x", timeout=DEADLINE)
                raise AssertionError("no error")
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE, error
                assert error.details(), "it says why"

    def endpoint_dies_within_an_answer(self):
        with grpc.insecure_channel(self.dying) as channel:
            answers = self.method("StreamDie", channel)(b"", timeout=DEADLINE)
            assert next(answers) == b"one"
            code = self.code(lambda: next(answers))
            assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL), code
            code = self.code(lambda: self.method("Unary", channel)(b"x", timeout=DEADLINE))
            assert code == grpc.StatusCode.UNAVAILABLE, code


def call(address, dead, dying):
    with grpc.insecure_channel(address, OPTIONS) as channel:
        cases = Cases(channel, dead, dying)
        cases.address = address
        own = [name for name in vars(Cases) if not name.startswith("_") and name not in ("method", "code")]
        for name in own:
            try:
                getattr(cases, name)()
                print(name, "ok", flush=True)
            except BaseException as error:
                print(name, "failed:", repr(error).replace("\n", " "), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        call(*sys.argv[2:5])
