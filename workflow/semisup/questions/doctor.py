"""Whether this cluster can run the pipeline, and what to change if not: `make doctor`.

Asks Slurm, then runs a job of a minute on a CPU node and one on one or two GPU nodes.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from semisup import jobs, slurm, tables
from semisup.site import Site, read_site

OLDEST = (20, 11)
"""`squeue --me` came with it."""

SHORTEST_JOB_AGE = 200
"""Seconds Slurm must remember a finished job: the executor asks every 180 at the longest."""

LATENCY = 60
"""Seconds a file may take to be seen on another node: `latency-wait` of the profile."""

LONGEST = {"cpu_partition": 720, "gpu_partition": 240}
"""Minutes of the longest job of the profile at its last try, trainings aside."""

MOST_CPUS = ("pack_selection", 8)
MOST_MEMORY = ("find_copies", 64_000)
"""The CPU jobs of the profile that ask for most: CPUs, and MB at the first try."""

NODE_MEMORY = {"cpu_partition": "memory_per_cpu_node", "gpu_partition": "memory_per_gpu_node"}
"""What of site.yaml limits the memory of all tries."""

TRIES = 3
"""Of a job that fails: `retries` of the profile, and the first. Each asks for more memory."""

TRAININGS = ("train", "pretrain", "finetune")

WAIT = 300
"""Seconds a job of the doctor waits for a node."""


class Finding(NamedTuple):
    """Something that was looked at. ``remedy``: empty if it is well."""

    what: str
    remedy: str = ""


class Node(NamedTuple):
    """What a node has. ``memory``: MB, ``gpus``: of the kind that is asked for."""

    cpus: int
    memory: int
    gpus: int


def main() -> None:
    site = read_site()
    failed = False
    for finding in examine(site):
        failed |= bool(finding.remedy)
        print(f"FAILED  {finding.what}\n        {finding.remedy}" if finding.remedy else f"ok      {finding.what}", flush=True)  # fmt: skip
    sys.exit(1 if failed else 0)


def examine(site: Site) -> Iterator[Finding]:
    """Everything, the cheap first; what cannot be looked at any more is left out."""
    try:
        yield check_version(slurm.ask("sinfo", "--version"))
        yield check_job_age(slurm.ask("scontrol", "show", "config"))
    except slurm.SlurmError as error:
        yield Finding(str(error), "Run this where `sbatch` works: on a login node of the cluster.")
        return
    partitions = dict[str, list[str]]()
    for key in LONGEST:
        names = getattr(site, key)  # sbatch takes several, and the first that is free
        for name in names.split(","):
            try:
                said = slurm.ask("scontrol", "show", "partition", "-o", name)
                partitions.setdefault(key, []).append(said)
            except slurm.SlurmError:
                there = ", ".join(slurm.ask("sinfo", "-h", "-o", "%R").split())
                yield Finding(f"partition {name!r} does not exist", f"Set {key} in site.yaml; there are: {there}.")  # fmt: skip
    if len(partitions) < 2:
        return
    limits = {key: longest_time(said) for key, said in partitions.items()}
    num_nodes = max(int(read(said, "TotalNodes")) for said in partitions["gpu_partition"])
    # -e: else sinfo puts nodes of several kinds together, as the least of each value and a +.
    kinds = {key: slurm.ask("sinfo", "-h", "-e", "-p", getattr(site, key), "-o", "%c %m %G") for key in LONGEST}  # fmt: skip
    nodes = {key: read_nodes(said, site.gpu) for key, said in kinds.items()}
    num_gpus = max((node.gpus for node in nodes["gpu_partition"]), default=0)
    yield from check_time(site, limits)
    yield from check_nodes(site, num_nodes, num_gpus if site.gpu else None)
    yield from check_sizes(site, nodes)
    yield from run_job(site, "cpu_partition", 1)
    yield from run_job(site, "gpu_partition", min(num_nodes, 2))


def check_version(text: str) -> Finding:
    numbers = tuple(int(number) for number in re.findall(r"\d+", text)[:2])
    if numbers < OLDEST:
        return Finding(text, f"Slurm must be {OLDEST[0]}.{OLDEST[1]} or newer.")
    return Finding(text)


def check_job_age(config: str) -> Finding:
    match = re.search(r"^MinJobAge\s*=\s*(\d+)", config, re.M)
    seconds = int(match[1]) if match else 0
    what = f"Slurm remembers finished jobs for {seconds} s (MinJobAge)"
    if seconds < SHORTEST_JOB_AGE:
        return Finding(
            what,
            f"Less than {SHORTEST_JOB_AGE} s: jobs end unseen. Ask for more, or set "
            "slurm-status-command to sacct in profiles/slurm, where a job that is cancelled from "
            "outside is then waited for for ever.",
        )
    return Finding(what)


def longest_time(partitions: list[str]) -> float | None:
    """Seconds a job may take in one of these partitions; None without a limit."""
    times = [slurm.parse_time(read(said, "MaxTime")) for said in partitions]
    known = [seconds for seconds in times if seconds is not None]
    return max(known) if len(known) == len(times) else None


def check_time(site: Site, limits: dict[str, float | None]) -> Iterator[Finding]:
    """Jobs longer than their partition allows would wait in the queue for ever."""
    for key, limit in limits.items():
        if limit is not None and LONGEST[key] * 60 > limit:
            yield Finding(
                f"jobs ask for up to {LONGEST[key] / 60:g} hours, {getattr(site, key)} allows {limit / 3600:g}",
                f"Set {key} in site.yaml to one that allows more, or lower the minutes of its rules in "
                "profiles/slurm: runtime, gpu_job.",
            )
    limit = limits["gpu_partition"]
    for rule in TRAININGS:
        hours = getattr(site, rule).hours
        if limit is not None and hours * 3600 > limit:
            yield Finding(
                f"{rule} asks for {hours} hours, {site.gpu_partition} allows {limit / 3600:g}",
                f"Set {rule}.hours in site.yaml to {int(limit // 3600)}; a longer training goes on "
                "in the next job."
                if limit >= 3600
                else "Set gpu_partition in site.yaml to one that allows an hour at least.",
            )


def most_gpus(said: str, gpu: str) -> int:
    """How many GPUs of this kind one node has, by what sinfo says of all; 0 where there are none."""
    name, _, kind = gpu.partition(":")
    found = re.findall(rf"^(?:.*,)?{name}:(?:{kind or '[^:,(]+'}:)?(\d+)", said, re.M)
    return max(map(int, found), default=0)


def check_nodes(site: Site, num_nodes: int, num_gpus: int | None) -> Iterator[Finding]:
    """``num_gpus``: the most that a node has, None where none are asked for."""
    for rule in TRAININGS:
        wanted = getattr(site, rule)
        if wanted.nodes > num_nodes:
            yield Finding(
                f"{rule} asks for {wanted.nodes} nodes, {site.gpu_partition} has {num_nodes}",
                f"Lower {rule}.nodes in site.yaml: the results stay the same.",
            )
        if num_gpus is not None and wanted.gpus > num_gpus:
            yield Finding(
                f"{rule} asks for {wanted.gpus} x {site.gpu} on a node, {site.gpu_partition} has {num_gpus}",
                f"Lower {rule}.gpus in site.yaml, and raise {rule}.nodes for as many in all."
                if num_gpus
                else "Set gpu in site.yaml to what `sinfo -o %G` says; null: there are none.",
            )


def read_nodes(said: str, gpu: str | None) -> list[Node]:
    """The kinds of nodes sinfo lists, each with its CPUs, MB and generic resources."""
    rows = (line.split(maxsplit=2) for line in said.splitlines())
    return [
        Node(int(cpus), int(memory), most_gpus(resources, gpu) if gpu else 0)
        for cpus, memory, resources in rows
    ]


def check_sizes(site: Site, nodes: dict[str, list[Node]]) -> Iterator[Finding]:
    """sbatch refuses what is larger than every node, at the first try or at a later one."""
    for key, check in (("cpu_partition", check_cpu_jobs), ("gpu_partition", check_gpu_jobs)):
        most = max((node.memory for node in nodes[key]), default=0)
        if most < 1_000:
            yield Finding(
                f"nodes of {getattr(site, key)} have {most} MB, as Slurm sees them",
                "It refuses every job: ask its administrator to set RealMemory in slurm.conf.",
            )
        else:
            yield from check(site, nodes[key])


def check_cpu_jobs(site: Site, nodes: list[Node]) -> Iterator[Finding]:
    rule, cpus = MOST_CPUS
    if cpus > (there := max(node.cpus for node in nodes)):
        yield Finding(
            f"{rule} asks for {cpus} CPUs, a node of {site.cpu_partition} has {there}",
            "Set cpu_partition in site.yaml to one of larger nodes, or lower the threads of its rules in "
            "profiles/slurm: set-threads.",
        )
    there = max(node.memory for node in nodes)
    yield from check_tries(site, "cpu_partition", *MOST_MEMORY, there)


def check_gpu_jobs(site: Site, nodes: list[Node]) -> Iterator[Finding]:
    """Looks at the rule with the most GPUs that a node has: where it fits, the others do."""
    gpus = {"score_shards": 1} | {rule: getattr(site, rule).gpus for rule in TRAININGS}
    most = max(node.gpus for node in nodes) if site.gpu else max(gpus.values())
    if not (possible := [rule for rule in gpus if gpus[rule] <= most]):
        return
    rule = max(possible, key=gpus.__getitem__)
    fitting = [node for node in nodes if node.gpus >= gpus[rule] or not site.gpu]
    cpus, memory = site.cpus_per_gpu * gpus[rule], site.memory_per_gpu * gpus[rule]
    if cpus > (there := max(node.cpus for node in fitting)):
        yield Finding(
            f"{rule} asks for {cpus} CPUs, a node of {site.gpu_partition} has {there}",
            f"Set cpus_per_gpu in site.yaml to {there // most}.",
        )
    there = max(node.memory for node in fitting)
    if min(memory, site.memory_per_gpu_node or memory) > there:
        yield Finding(
            f"{rule} asks for {memory} MB, a node of {site.gpu_partition} has {there}",
            f"Set memory_per_gpu in site.yaml to {there // most}.",
        )
    yield from check_tries(site, "gpu_partition", rule, memory, there)


def check_tries(site: Site, key: str, rule: str, memory: int, there: int) -> Iterator[Finding]:
    """``memory``: MB of the first try; ``there``: of the largest node."""
    last = min(memory * TRIES, getattr(site, NODE_MEMORY[key]) or memory * TRIES)
    if last > there:
        yield Finding(
            f"{rule} asks for up to {last} MB when tried again, a node of {getattr(site, key)} has {there}",
            f"Set {NODE_MEMORY[key]} in site.yaml to {there}: no job asks for more.",
        )


def run_job(site: Site, partition: str, nodes: int) -> Iterator[Finding]:
    """What a step finds on nodes of this partition."""
    on_gpu = partition == "gpu_partition"
    name = getattr(site, partition)
    here = Path(tempfile.mkdtemp(prefix=".doctor-", dir="."))
    token = here / "token"
    token.write_text(uuid.uuid4().hex)
    step = ["check_node", "--token", str(token), "--found", str(here)]
    launch = [sys.executable, "-m", "semisup.launch", "--nodes", str(nodes), "--logs", str(here / "logs"), *step]  # fmt: skip
    before = ["sh", "-c", f'{site.precommand()} && exec "$@"', "sh"] if site.before_job else []
    command = [
        "salloc", "--quiet", f"--immediate={WAIT}", "-p", name, f"--nodes={nodes}", "-t", "2",
        *_option("-A", site.account), *_option("--qos", site.qos),
        *(_option("--gres", site.gpu and f"{site.gpu}:1") if on_gpu else []),
        *(_option("-C", site.constraint) if on_gpu else []),
        *([*before, *launch] if nodes > 1 else ["srun", "-n1", *before, *launch]),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT + 180)
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines()
            nothing = (
                f"It said nothing and ended with {done.returncode}; see `scontrol show nodes`."
            )
            yield Finding(
                f"a job on {nodes} x {name} fails", "\n        ".join(said[-12:]) or nothing
            )
            return
        ranks = _collect(here, nodes)
        yield from judge(ranks, name, site.gpu if on_gpu else None, token.read_text(), nodes)
    except subprocess.TimeoutExpired:
        yield Finding(f"a job on {nodes} x {name} does not end", "See `squeue --me` and the nodes.")
    finally:
        shutil.rmtree(here, ignore_errors=True)


def judge(
    ranks: list[dict[str, Any]], partition: str, gpu: str | None, token: str, nodes: int
) -> Iterator[Finding]:
    """What is to be said of what the ranks found, one on each node."""
    if len(ranks) < nodes:
        yield Finding(
            f"{nodes - len(ranks)} of {nodes} nodes left no file that is seen here in {LATENCY} s",
            "The folder must be on a file system that all nodes share; move the project there.",
        )
        return
    hosts = " ".join(rank["host"] for rank in ranks)
    one = ranks[0]
    yield Finding(f"a job on {partition} ran on {hosts}, with torch {one['torch']}, torchvision {one['torchvision']}")  # fmt: skip
    if not all(rank["works"] for rank in ranks):
        yield Finding("torchvision's operators do not work", "Install both anew: `make setup`.")
    if unread := [rank["host"] for rank in ranks if rank["token"] != token]:
        yield Finding(
            f"{' '.join(unread)}: files of this machine are not seen",
            "The folder must be on a file system that all nodes share; move the project there.",
        )
    else:
        yield Finding("files are seen both ways")
    if gpu and (without := [rank["host"] for rank in ranks if not rank["gpus"]]):
        yield Finding(
            f"{' '.join(without)}: PyTorch sees no GPU, Slurm gave {one['visible'] or 'none'}",
            "Look at `nvidia-smi` there: the driver may be older than this PyTorch needs, or "
            f"{gpu!r} is no GPU (`gpu` in site.yaml). Without, everything runs on CPUs.",
        )
    elif gpu:
        yield Finding(f"PyTorch sees {one['gpu']}")
    if nodes > 1 and one["ranks"] == nodes:
        yield Finding(f"ranks on {nodes} nodes reach each other, by {'NCCL' if one['gpus'] else 'gloo'}")  # fmt: skip


def _collect(folder: Path, count: int) -> list[dict[str, Any]]:
    """What the ranks wrote, once all of it is seen here."""
    deadline = time.monotonic() + LATENCY
    while len(found := sorted(folder.glob("[0-9]*.json"))) < count and time.monotonic() < deadline:
        time.sleep(0.5)
    return [tables.read_json(path) for path in found]


def read(text: str, name: str) -> str:
    """A value of what `scontrol show -o` says."""
    match = re.search(rf"\b{name}=(\S+)", text)
    return match[1] if match else ""


def _option(name: str, value: str | None) -> list[str]:
    return [name, value] if value else []


if __name__ == "__main__":
    jobs.prepare(str(Path(__file__).parents[2]))
    main()
