"""A network of its own for the processes of one job, by a Linux network namespace."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

# Brings the loopback interface up (SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP), then waits for the launcher's end.
_HOLDER = """
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    flags = struct.unpack("16sh", fcntl.ioctl(one, 0x8913, struct.pack("16sh", b"lo", 0)))[1]
    fcntl.ioctl(one, 0x8914, struct.pack("16sh", b"lo", flags | 1))
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def private_network() -> Iterator[list[str]]:
    """Yields the beginning of a command line that runs a program in a network that nobody else reaches.

    Only its loopback interface exists, so programs inside reach each other and nothing else: no downloads.
    The network ends with the last program in it.

    Raises:
        RuntimeError: If the system has no network namespaces, or does not let this user make one.
    """
    tools = [shutil.which(name) for name in ("unshare", "nsenter")]
    if sys.platform != "linux" or None in tools:
        raise RuntimeError(_REFUSED.format("it needs Linux with `unshare` and `nsenter` (util-linux)"))
    holder = subprocess.Popen(
        ["unshare", "--map-root-user", "--net", sys.executable, "-c", _HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C goes to the launcher, which ends this process last
    )
    with holder:
        ready = holder.stdout.readline() if holder.stdout else ""
        if ready.strip() != "ready":
            errors = holder.communicate()[1].strip().splitlines() or ["no reason given"]
            raise RuntimeError(_REFUSED.format(errors[-1]))
        namespaces = ["--user", "--net", "--preserve-credentials"]
        yield ["nsenter", f"--target={holder.pid}", *namespaces, "--"]
        # Leaving `with holder` closes its input, which ends it.


_REFUSED = (
    "This system cannot give the workers a network of their own: {}. Leave `isolate` out, and let a firewall "
    "keep others from the ports of this machine."
)
