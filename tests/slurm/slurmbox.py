"""A real Slurm cluster on this machine: `python slurmbox.py FOLDER COMMAND...` runs a command on it.

A controller, a CPU node c1 and GPU nodes g1 to g3 of two GPUs each, every one with a host name, an
address and a network of its own, inside private namespaces: nothing of the machine is touched, and
when the first process of the box ends, all daemons and jobs end. The GPUs are character devices
that do nothing; Slurm counts them and hands them out. Needs slurmctld, slurmd, slurm-client, munge
and iproute2, and root or a kernel where users may make namespaces: then Slurm runs as its user.
"""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NODES = ("c1", "g1", "g2", "g3")
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter", "unshare")
NETWORK = "10.99.0"
IS_ROOT = os.geteuid() == 0
FOR_USERS = ["--user", "--map-current-user", "--keep-caps"]
UNSHARE = [
    *([] if IS_ROOT else FOR_USERS),
    "--net",
    "--mount",
    "--uts",
    "--ipc",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
]

CONFIGURATION = """
ClusterName=box
SlurmctldHost=ctl
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# cred_expire: a job that is put back into the queue waits so long, and by default two minutes.
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
{accounting}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
MinJobAge=600
JobRequeue=0
KillWait=5
SlurmdTimeout=5
GresTypes=gpu
NodeName=c1 CPUs=64 RealMemory=256000
NodeName=g[1-3] CPUs=64 RealMemory=256000 Gres=gpu:2
PartitionName=cpu Nodes=c1 Default=YES MaxTime=3-00:00:00 State=UP
PartitionName=gpu Nodes=g[1-3] MaxTime=3-00:00:00 State=UP
"""

WITHOUT_ACCOUNTING = """
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
"""

WITH_ACCOUNTING = """
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=ctl
AccountingStoragePass={folder}/munge.socket
"""

DATABASE = """
DbdHost=ctl
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
"""


def missing() -> list[str]:
    """What this machine lacks to hold a cluster."""
    path = "/usr/sbin:/sbin:" + os.environ["PATH"]
    lacks = [name for name in NEEDED if not shutil.which(name, path=path)]
    if not lacks and subprocess.run(["unshare", *UNSHARE, "true"], capture_output=True).returncode:
        lacks.append("the right to make namespaces")
    if not IS_ROOT and not Path("/etc/slurm").exists():
        lacks.append("the folder /etc/slurm")
    return lacks


class Box:
    """A running cluster; a context. ``folder``: short, as sockets lie in it.

    ``accounting``: with a database of finished jobs, which needs slurmdbd and mariadb-server too.
    """

    def __init__(self, folder: Path, accounting: bool = False) -> None:
        self.folder, self.accounting = folder, accounting

    def __enter__(self) -> "Box":
        own = [sys.executable, __file__, "--inside", str(self.folder), str(int(self.accounting))]
        command = ["unshare", *UNSHARE, *own]
        with open(self.folder / "box.log", "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        while not (self.folder / "ready").exists():
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "box.log").read_text())
            time.sleep(0.02)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.pid = children.read_text().split()[0]
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()  # and with it everything inside
        self.process.wait()

    def command(self, *command: str, node: str = "", directory: str = "") -> list[str]:
        """A command on the controller, or on a node."""
        as_user = [] if IS_ROOT else ["--user", "--preserve-credentials"]
        inside = [
            "nsenter",
            "-t",
            self.pid,
            *as_user,
            "--net",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
        ]
        there = ["nsenter", f"--net=/run/netns/{node}"] if node else []
        return [*inside, f"--wd={directory or os.getcwd()}", *there, *command]

    def run(
        self, *command: str, node: str = "", **options: Any
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*command, node=node), text=True, capture_output=True, **options
        )

    def say(self, *command: str) -> str:
        """What a command on the controller says; it must not fail."""
        done = self.run(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def kill_node(self, node: str) -> None:
        """All processes of a node at once, as when its power goes."""
        for pid in self.say("ip", "netns", "pids", node).split():
            self.run("kill", "-9", pid)

    def cut_off(self, node: str) -> None:
        """Its network goes, its processes stay."""
        self.say("ip", "link", "set", f"v-{node}", "down")


def inside(folder: Path, accounting: bool) -> None:
    """As the first process of the namespaces: start everything, then wait to be killed."""
    make_network(folder)
    for name in ("state", "etc", "dev", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir(exist_ok=True)
    extra = (WITH_ACCOUNTING if accounting else WITHOUT_ACCOUNTING).format(folder=folder)
    text = CONFIGURATION.format(folder=folder, accounting=extra, user=getpass.getuser())
    (folder / "etc" / "slurm.conf").write_text(text)
    (folder / "etc" / "gres.conf").write_text(
        f"NodeName=g[1-3] Name=gpu File={make_devices(folder / 'dev')}\n"
    )
    # Else slurmd looks for control groups, which a container may not have.
    (folder / "etc" / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    if IS_ROOT:
        Path("/etc/slurm").mkdir(exist_ok=True)
    shell("mount", "--bind", str(folder / "etc"), "/etc/slurm")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    options = {
        "key-file": key,
        "socket": folder / "munge.socket",
        "pid-file": folder / "munged.pid",
    }
    options |= {"log-file": folder / "munged.log", "seed-file": folder / "munged.seed"}
    shell("munged", "--force", *(f"--{name}={path}" for name, path in options.items()))
    if accounting:
        start_database(folder)
    shell("slurmctld", "-c")
    for node in NODES:
        start = f"hostname {node}; exec slurmd"
        shell("nsenter", f"--net=/run/netns/{node}", "unshare", "--uts", "sh", "-c", start)
    deadline = time.monotonic() + 30
    while len(set(shell("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split())) < len(NODES):
        if time.monotonic() > deadline:
            sys.exit("the nodes do not come up:\n" + (folder / "slurmctld.log").read_text())
        time.sleep(0.05)
    (folder / "ready").touch()
    while True:  # the first process of a namespace inherits the orphans
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(1)


def make_devices(folder: Path) -> str:
    """Two devices that do nothing, as a pattern; only root may make some."""
    if not IS_ROOT:
        return "/dev/tty[0-1]"
    for gpu in range(2):
        if not (device := folder / f"nvidia{gpu}").exists():
            os.mknod(device, 0o666 | 0o020000, os.makedev(1, 3))
    return f"{folder}/nvidia[0-1]"


def start_database(folder: Path) -> None:
    """MariaDB with its socket where slurmdbd looks, then slurmdbd, then this cluster in it."""
    sockets, data = Path("/run/mysqld"), folder / "mysql"
    sockets.mkdir(exist_ok=True)
    shell("mount", "-t", "tmpfs", "tmpfs", str(sockets))
    options = ["--user=root", f"--datadir={data}"]
    shell(
        "mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db"
    )
    with open(folder / "mariadb.log", "w") as log:
        small = ["--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0"]
        command = ["mariadbd", "--no-defaults", *options, "--skip-networking", *small]
        subprocess.Popen([*command, f"--socket={sockets}/mysqld.sock"], stdout=log, stderr=log)
    wait_for("mariadb", f"--socket={sockets}/mysqld.sock", "-e", "select 1")
    configuration = folder / "etc" / "slurmdbd.conf"
    configuration.write_text(DATABASE.format(folder=folder))
    configuration.chmod(0o600)
    shell("slurmdbd")
    wait_for("sacctmgr", "-n", "-i", "list", "cluster")
    shell("sacctmgr", "-i", "add", "cluster", "box")


def wait_for(*command: str) -> None:
    deadline = time.monotonic() + 60
    while subprocess.run(command, capture_output=True).returncode:
        if time.monotonic() > deadline:
            sys.exit(f"{command[0]} does not answer")
        time.sleep(0.1)


def make_network(folder: Path) -> None:
    """A bridge here, and for each node a network namespace with one end of a cable in it."""
    socket.sethostname("ctl")
    if not IS_ROOT:
        shell("mount", "-t", "tmpfs", "tmpfs", "/run")
    Path("/run/netns").mkdir(exist_ok=True)
    shell("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
    ip("link", "set", "lo", "up")
    ip("link", "add", "br0", "type", "bridge")
    ip("addr", "add", f"{NETWORK}.1/24", "dev", "br0")
    ip("link", "set", "br0", "up")
    hosts = ["127.0.0.1 localhost", f"{NETWORK}.1 ctl"]
    for number, node in enumerate(NODES, 11):
        hosts.append(f"{NETWORK}.{number} {node}")
        ip("netns", "add", node)
        ip("-n", node, "link", "set", "lo", "up")
        ip("link", "add", f"v-{node}", "type", "veth", "peer", "name", "eth0", "netns", node)
        ip("-n", node, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        ip("-n", node, "link", "set", "eth0", "up")
        ip("link", "set", f"v-{node}", "master", "br0", "up")
    (folder / "hosts").write_text("\n".join(hosts) + "\n")
    shell("mount", "--bind", str(folder / "hosts"), "/etc/hosts")


def ip(*words: str) -> None:
    shell("ip", *words)


def shell(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    if sys.argv[1] == "--missing":
        sys.exit(print(", ".join(missing())))
    if sys.argv[1] == "--inside":
        inside(Path(sys.argv[2]), sys.argv[3] == "1")
    with Box(Path(sys.argv[1])) as box:
        sys.exit(subprocess.run(box.command(*sys.argv[2:])).returncode)
