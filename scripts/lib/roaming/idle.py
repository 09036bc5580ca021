"""Waits for mail on one IMAP connection (RFC 2177): idle.py ADDRESS. Prints what comes, a line at a time, until the connection ends."""

import socket
import sys

connection = socket.create_connection((sys.argv[1], 143), timeout=20)
# As long as the kernel keeps it: nothing here asks, or connects again.
connection.settimeout(None)
lines = connection.makefile("rb")


def say(text: str) -> None:
    connection.sendall(text.encode() + b"\r\n")


def until(start: bytes) -> None:
    for line in lines:
        if line.startswith(start):
            return
    sys.exit("the server closed the connection")


until(b"* OK")
say("a login box demo")
until(b"a OK")
say("b select inbox")
until(b"b OK")
say("c idle")
for line in lines:
    print(line.decode().strip(), flush=True)
print("closed", flush=True)
