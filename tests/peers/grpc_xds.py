"""A gRPC client that finds its service by xDS alone, without any proxy. Servers are those of grpc_echo.py.

    grpc_xds.py follow HOST:PORT AUTHORITY NAME...   calls until NAME... have answered in this order; says each as it comes
    grpc_xds.py unknown HOST:PORT AUTHORITY          one call to what does not exist; says how it failed

HOST:PORT is the xDS server. No call of `follow` may fail.
"""

import json
import os
import sys
import time

what, server, authority = sys.argv[1:4]
bootstrap = {
    "xds_servers": [{"server_uri": server, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
    "node": {"id": "grpc-%d" % os.getpid()},
}
os.environ["GRPC_XDS_BOOTSTRAP_CONFIG"] = json.dumps(bootstrap)
# Without it gRPC skips what a response says of single resources, and takes 15 s to believe that one is not there.
os.environ["GRPC_EXPERIMENTAL_XDS_DATA_ERROR_HANDLING"] = "true"

import grpc  # reads the environment

METHOD = "/weft.test.Echo/Unary"


def name_of_answer(channel):
    answer, rpc = channel.unary_unary(METHOD).with_call(b"x", timeout=20)
    assert answer == b"x", answer
    return dict(rpc.trailing_metadata())["server-name"]


with grpc.insecure_channel("xds:///" + authority) as channel:
    if what == "follow":
        awaited = sys.argv[4:]
        calls = 0
        while awaited:
            calls += 1
            if name_of_answer(channel) == awaited[0]:
                print(awaited.pop(0), flush=True)
            time.sleep(0.005)  # some 200 calls a second
        print("ok", calls, flush=True)
    else:
        started = time.monotonic()
        try:
            channel.unary_unary(METHOD)(b"x", timeout=12)
            sys.exit("a call to what does not exist was answered")
        except grpc.RpcError as error:
            in_time = "at once" if time.monotonic() - started < 6 else "late"
            print(error.code().name, in_time, error.details(), flush=True)
