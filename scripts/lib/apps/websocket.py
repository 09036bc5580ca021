"""An echo over WebSocket. serve ADDRESS… PORT: sends back what comes. ask URL: sends messages up to 1 MiB and compares what comes back."""
import asyncio
import os
import sys
import time

import websockets

LIMIT = 2 << 20


async def echo(connection, *_):
    async for message in connection:
        await connection.send(message)


async def serve(addresses, port):
    async with websockets.serve(echo, addresses, port, max_size=LIMIT):
        await asyncio.Future()


async def ask(url):
    messages = ["", "from ben", "ä€😀" * 1000, os.urandom(65536), os.urandom(1 << 20)]
    async with websockets.connect(url, max_size=LIMIT, open_timeout=10) as connection:
        began = time.monotonic()
        for message in messages:
            await connection.send(message)
            if await connection.recv() != message:
                sys.exit(f"a message of {len(message)} came back changed")
        took = time.monotonic() - began
        await asyncio.wait_for(await connection.ping(), 10)
        address = connection.remote_address[0]
    sizes = ", ".join(str(len(m.encode() if isinstance(m, str) else m)) for m in messages)
    print(f"{len(messages)} messages to {address} came back as they were ({sizes} bytes) in {took * 1000:.0f} ms, and a ping's pong")


if sys.argv[1] == "serve":
    asyncio.run(serve(sys.argv[2:-1], int(sys.argv[-1])))
else:
    asyncio.run(ask(sys.argv[2]))
