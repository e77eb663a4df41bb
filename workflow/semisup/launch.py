"""Start a step as one process, as several ranks on this machine, or on several nodes of a Slurm job.

`python -m semisup.launch --nodes 2 --ranks 8 --logs FOLDER train --settings ...`: how it runs, then
the step and its own arguments. One process needs nothing; ranks are started by torchrun; nodes by
srun, which the allocation must allow (profiles/slurm). The first node is where ranks meet, at a port
that follows from the job's number.
"""

import argparse
import ipaddress
import os
import signal
import socket
import sys
from pathlib import Path

from semisup import slurm
from semisup.slurm import SlurmError

FIRST_PORT, NUM_PORTS = 20_000, 12_768
"""Below those that Linux hands out by itself, from 32768."""

TORCHRUN = "SEMISUP_TORCHRUN"
"""The number of the process that starts the ranks, which they watch."""

ON_NODE = "SEMISUP_ON_NODE"
"""Set where srun has started this module on a node."""


class LaunchError(Exception):
    """Why the ranks cannot be started, and what to do."""


def main(arguments: list[str]) -> None:
    """Become the command that runs the step; its exit status is this process's."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=1, help="processes per node, one a GPU")
    parser.add_argument("--cpus", type=int, default=1, help="of each node")
    parser.add_argument("--timeout", type=int, default=600, help="seconds to wait for other nodes")
    parser.add_argument("--logs", type=Path, required=True, help="folder for what each rank says")
    parser.add_argument("step")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    step = [f"semisup.steps.{given.step}", *given.arguments]
    try:
        if given.nodes > 1 and ON_NODE not in os.environ:
            command = on_all_nodes(given.nodes, given.cpus, arguments)
        elif given.nodes > 1:
            command = on_this_node(given.nodes, given.ranks, given.timeout, given.logs, step)
        elif given.ranks > 1:
            command = torchrun(["--standalone"], given.ranks, given.logs, step)
        else:
            command = [sys.executable, "-m", *step]
    except (LaunchError, SlurmError) as error:
        sys.exit(f"error: {error}")
    if command[2] != step[0]:  # torchrun and srun would die of it; ranks have handlers of their own
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        os.environ[TORCHRUN] = str(os.getpid())  # the same after exec
    os.execvp(command[0], command)


def torchrun(rendezvous: list[str], ranks: int, logs: Path, step: list[str]) -> list[str]:
    """The command that starts the ranks of one node; each says what it says in a file too."""
    folder = logs / log_name(slurm.job_id(), slurm.restarts(), socket.gethostname())
    own = ["--nproc-per-node", str(ranks), "--log-dir", str(folder), "--tee", "3"]
    return [sys.executable, "-m", "torch.distributed.run", *rendezvous, *own, "--module", *step]


def log_name(job: str, restarts: int, host: str) -> str:
    """Of the folder of one node, as torchrun's own are random: 1234-g1, once requeued 1234-restart1-g1."""
    return "-".join([*([job] if job else []), *([f"restart{restarts}"] if restarts else []), host])


def on_this_node(nodes: int, ranks: int, timeout: int, logs: Path, step: list[str]) -> list[str]:
    """The command of one task of srun. It fails when another one does not come in ``timeout`` s.

    Raises LaunchError where the first node cannot be found by its name: torchrun would wait in silence.
    """
    environment = os.environ
    check_meeting_place(environment["MASTER_ADDR"], is_first=environment["SLURM_PROCID"] == "0")
    rendezvous = [
        "--nnodes", str(nodes), "--node-rank", environment["SLURM_PROCID"],
        "--master-addr", environment["MASTER_ADDR"], "--master-port", environment["MASTER_PORT"],
        "--rdzv-id", environment["SLURM_JOB_ID"], "--rdzv-conf", f"timeout={timeout}",
    ]  # fmt: skip
    return torchrun(rendezvous, ranks, logs, step)


def check_meeting_place(name: str, is_first: bool) -> None:
    """Raises LaunchError unless this name of the first node leads there from this node.

    A node may know itself as 127.0.1.1, if gloo is told which network to use.
    """
    here = socket.gethostname()
    try:
        addresses = sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None)})
    except OSError as error:
        raise LaunchError(
            f"on {here} the first node, {name!r}, cannot be resolved ({error}): the nodes of this "
            "cluster must know each other by name. Ask its administrator."
        ) from None
    on_itself = [ipaddress.ip_address(each.split("%")[0]).is_loopback for each in addresses]
    if all(on_itself) and not (is_first and "GLOO_SOCKET_IFNAME" in os.environ):
        raise LaunchError(
            f"on {here} the first node, {name!r}, is {', '.join(addresses)}, where no other node can "
            "reach it. Ask the administrator to correct /etc/hosts"
            + (
                ", or name the network: before_job: export GLOO_SOCKET_IFNAME=..."
                if is_first
                else ""
            )
            + "."
        )


def on_all_nodes(nodes: int, cpus: int, arguments: list[str]) -> list[str]:
    """The command that runs this module on each node of the Slurm job, one task a node.

    Raises LaunchError outside of a job, or in one of another size.
    """
    if not (job := slurm.job_id()):
        raise LaunchError(
            f"nodes: {nodes}, but this is no Slurm job. Use --profile slurm, or set nodes to 1."
        )
    names = slurm.node_names()
    if len(names) < nodes:
        raise LaunchError(
            f"nodes: {nodes}, but job {job} has {len(names)} ({' '.join(names)}). Set nodes in "
            "site.yaml, not by --set-resources, which drops the rest of the profile."
        )
    os.environ[ON_NODE] = "1"
    os.environ["MASTER_ADDR"] = names[0]
    os.environ["MASTER_PORT"] = str(FIRST_PORT + int(job) % NUM_PORTS)
    print(f"job {job} on {' '.join(names)}, ranks meet at {names[0]}", flush=True)
    return [
        "srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1",
        f"--cpus-per-task={cpus}", "--kill-on-bad-exit=1",
        sys.executable, "-m", "semisup.launch", *arguments,
    ]  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
