# SPDX-License-Identifier: Apache-2.0
"""tap_relay.py SOCKET: ties tap0 of this network namespace to a NIC's socket, as QEMU would.

Listens on SOCKET, and goes on with the next connection when one ends.
"""

import fcntl
import os
import select
import socket
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000


def relay(tap, stream):
    """Until the stream ends."""
    received = b""
    while True:
        ready, _, _ = select.select([tap, stream], [], [])
        if tap in ready:
            frame = os.read(tap, 65536)
            stream.sendall(struct.pack("!I", len(frame)) + frame)
        if stream in ready:
            data = stream.recv(1 << 16)
            if not data:
                return
            received += data
            while len(received) >= 4:
                size, = struct.unpack("!I", received[:4])
                if len(received) < 4 + size:
                    break
                try:
                    os.write(tap, received[4:4 + size])
                except OSError:
                    pass  # the device is down
                received = received[4 + size:]


def main():
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"tap0", IFF_TAP | IFF_NO_PI))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(sys.argv[1])
    listener.listen(1)
    print("ready", flush=True)
    while True:
        stream, _ = listener.accept()
        try:
            relay(tap, stream)
        except OSError:
            pass
        stream.close()


if __name__ == "__main__":
    main()
