"""A WebSocket service and its client.

    websocket_echo.py serve HOST PORT     serves until killed; says `ready` on stdout
    websocket_echo.py call HOST PORT N    N messages, text and binary; says `ok` when every answer was right
"""

import asyncio
import sys

import websockets


async def serve(host, port):
    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    async with websockets.serve(echo, host, port):
        print("ready", flush=True)
        await asyncio.Future()


async def call(host, port, count):
    async with websockets.connect("ws://%s:%d/echo" % (host, port)) as connection:
        for number in range(count):
            for message in ("text %d" % number, b"bytes %d" % number + b"\x00" * number):
                await connection.send(message)
                assert await connection.recv() == message
    print("ok", flush=True)


what, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
asyncio.run(serve(host, port) if what == "serve" else call(host, port, int(sys.argv[4])))
