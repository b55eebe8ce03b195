#!/usr/bin/env python3
"""Runs an MPI program on two hosts that are far apart, on one machine: two network namespaces, between them a link with delay and loss.

    sudo python3 tools/two_hosts.py --delay-ms 20 --loss 0.01 -- target/debug/zo train --steps 100 --out /tmp/far
    sudo python3 tools/two_hosts.py --ranks 4 -- target/debug/examples/latency 100

Linux, and Open MPI. The delay is one way; packets are lost in both directions, independently. The link is this script: it reads packets from
two TUN devices, drops some, and writes the others to the other device when they are due (what `tc netem` does, for kernels without it). Each
namespace has a host name of its own, and ranks are started in the second one as on another machine, by a remote shell that enters it.
"""
import argparse
import collections
import fcntl
import os
import pathlib
import random
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

NAMES, ADDRESSES = ["zo-far-a", "zo-far-b"], ["10.77.0.1", "10.77.0.2"]
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000

# mpirun asks it to run a command on a host: `agent HOST COMMAND ..`.
AGENT = """#!/bin/sh
host=$1; shift
exec ip netns exec {b} unshare --uts sh -c 'hostname {b}; exec sh -c "$0"' "$*"
"""


def run(*command):
    subprocess.run(command, check=True)


def device(name):
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return file


def relay(files, delay, loss, counts, ends):
    """Moves packets from each device to the other, `delay` seconds later, in order."""
    chance = random.Random(1)
    due = [collections.deque(), collections.deque()]
    while not ends.is_set():
        now = time.monotonic()
        waits = [queue[0][0] - now for queue in due if queue]
        ready, _, _ = select.select(files, [], [], max(0.0, min([0.1, *waits])))
        now = time.monotonic()
        for here in (0, 1):
            if files[here] in ready:
                packet = os.read(files[here], 65536)
                counts["packets"] += 1
                counts["bytes"] += len(packet)
                if chance.random() < loss:
                    counts["lost"] += 1
                else:
                    due[1 - here].append((now + delay, packet))
        for there in (0, 1):
            while due[there] and due[there][0][0] <= now:
                os.write(files[there], due[there].popleft()[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay-ms", type=float, default=20.0)
    parser.add_argument("--loss", type=float, default=0.01)
    parser.add_argument("--ranks", type=int, default=2, help="half of them on each host")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    ends, counts = threading.Event(), collections.Counter()
    # So that the namespaces are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as folder:
        agent = pathlib.Path(folder, "agent")
        agent.write_text(AGENT.format(b=NAMES[1]))
        agent.chmod(0o755)
        files, link = [], None
        try:
            for name, address in zip(NAMES, ADDRESSES):
                run("ip", "netns", "add", name)
                tun = name.replace("zo-far", "zofar")
                files.append(device(tun))
                run("ip", "link", "set", tun, "netns", name)
                inside = ["ip", "-n", name]
                run(*inside, "link", "set", "lo", "up")
                run(*inside, "address", "add", f"{address}/24", "dev", tun)
                run(*inside, "link", "set", tun, "up")
            link = threading.Thread(target=relay, args=(files, args.delay_ms / 1e3, args.loss, counts, ends))
            link.start()
            half = args.ranks // 2
            subnet = "10.77.0.0/24"
            mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(args.ranks)]
            mpirun += ["--host", f"{ADDRESSES[0]}:{args.ranks - half},{ADDRESSES[1]}:{half}"]
            mpirun += ["--mca", "plm_rsh_agent", str(agent), "--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", subnet]
            mpirun += ["--mca", "oob_tcp_if_include", subnet]
            shell = 'hostname "$0"; exec "$@"'
            begin = time.monotonic()
            enter = ["ip", "netns", "exec", NAMES[0], "unshare", "--uts", "sh", "-c", shell, NAMES[0]]
            code = subprocess.run([*enter, *mpirun, *args.command], cwd=os.getcwd()).returncode
            print(f"{time.monotonic() - begin:.1f} s, exit code {code}; {dict(counts)}")
        finally:
            ends.set()
            if link:
                link.join()
            for name in NAMES:
                subprocess.run(["ip", "netns", "delete", name], check=False)
            for file in files:
                os.close(file)
    return code


if __name__ == "__main__":
    sys.exit(main())
