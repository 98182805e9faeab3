# SPDX-License-Identifier: MIT
# What tests send over a line (weft line), which they run this in.  line-probe.py WHAT [NUMBER]:
#   rtt N      round-trip times in us of N small packets, one after another
#   stream N   bits a second of N MiB over TCP; lo N: likewise, over the loopback of the far end
#   blast N    numbers of the packets that arrived, of N small ones
#   mtu N      whether a packet of N bytes goes, which may not be cut
import ctypes, os, socket, struct, sys, time

NEAR, FAR, FAR_IP = (os.environ[f"WEFT_LINE_{name}"] for name in ("NEAR", "FAR", "FAR_IP"))
UDP_HEADERS = 28


def enter(path):
    with open(path) as ns:
        if ctypes.CDLL(None, use_errno=True).setns(ns.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"setns {path}")


def far_socket(make):
    enter(FAR)
    sock = make()
    enter(NEAR)
    return sock


def child(run):
    pid = os.fork()
    if pid == 0:
        run()
        os._exit(0)
    return pid


def bound(size=None):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if size:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    sock.bind((FAR_IP, 0))
    return sock


def near_socket(far):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(far.getsockname())
    sock.settimeout(10)
    return sock


def rtt(n):
    far = far_socket(bound)

    def echo():
        for _ in range(n):
            far.sendto(*far.recvfrom(100))

    pid = child(echo)
    near = near_socket(far)
    for _ in range(n):
        start = time.monotonic()
        near.send(b"x" * 32)
        near.recv(100)
        print(round((time.monotonic() - start) * 1e6))
    os.waitpid(pid, 0)


def stream(n, host):
    server = far_socket(lambda: socket.create_server((host, 0)))
    read_end, write_end = os.pipe()

    def sink():
        peer, _ = server.accept()
        left = n << 20
        while left:
            left -= len(peer.recv(min(left, 1 << 20)))
        os.write(write_end, struct.pack("d", time.monotonic()))

    pid = child(sink)
    if host != FAR_IP:
        enter(FAR)
    # Before the first byte leaves: whoever takes them may be late.
    start = time.monotonic()
    near = socket.create_connection(server.getsockname())
    for _ in range(n):
        near.sendall(b"x" * (1 << 20))
    os.waitpid(pid, 0)
    print(round((n << 20) * 8 / (struct.unpack("d", os.read(read_end, 8))[0] - start)))


def blast(n):
    far = far_socket(lambda: bound(64 << 20))
    near = near_socket(far)
    far.settimeout(1)
    for i in range(n):
        near.send(struct.pack("I", i))
        if i % 100 == 99:
            time.sleep(0.001)
    try:
        for _ in range(n):
            print(struct.unpack("I", far.recv(100))[0])
    except socket.timeout:
        pass


def mtu(n):
    far = far_socket(bound)
    near = near_socket(far)
    near.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: never cut
    try:
        near.send(b"x" * (n - UDP_HEADERS))
    except OSError:
        print("too long")
        return
    far.settimeout(10)
    print("went" if len(far.recv(1 << 16)) == n - UDP_HEADERS else "was cut")


what, arguments = sys.argv[1], sys.argv[2:]
if what == "lo":
    stream(int(arguments[0]), "127.0.0.1")
elif what == "stream":
    stream(int(arguments[0]), FAR_IP)
else:
    {"rtt": rtt, "blast": blast, "mtu": mtu}[what](int(arguments[0]))
