"""What differs from cluster to cluster, and nothing else: ``site.yaml``, for profiles/slurm.

The profile says what each rule needs; this says where a site has it. No stage reads it, so nothing
here makes a result stale.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator

from semisup.config import Section
from semisup.config_errors import ConfigError, explain, refuse_repeated_keys

VARIABLE = "SEMISUP_SITE"
"""The environment variable that names another file than `site.yaml`."""


class Nodes(Section):
    """What one training runs on. One process a GPU; the global batch is the recipe's."""

    nodes: int = Field(1, ge=1, description="More than one: srun starts torchrun on each.")
    gpus: int = Field(1, ge=1, description="GPUs of each node.")
    hours: int = Field(
        24,
        ge=1,
        description="Time limit of a job. A training that needs longer writes a checkpoint before "
        "it, queues its job again and goes on.",
    )


class Site(Section):
    """Every key of `site.yaml`. A site that names its partitions `cpu` and `gpu` needs none."""

    account: str | None = Field(None, description="Whom jobs are charged to (`sbatch -A`).")
    qos: str | None = Field(None, description="Quality of service (`sbatch --qos`).")
    cpu_partition: str = Field("cpu", description="Partition of the steps without a network.")
    gpu_partition: str = Field("gpu", description="Partition of scoring, features and training.")
    gpu: str | None = Field(
        "gpu", description="A GPU as `sbatch --gres` names it, `gpu:h100`. null: there are none."
    )
    constraint: str | None = Field(None, description="Features of GPU nodes (`sbatch -C`).")
    cpus_per_gpu: int = Field(8, ge=1, description="They decode the images of one GPU.")
    memory_per_gpu: int = Field(32_000, ge=1_000, description="Memory for one GPU, in MB.")
    memory_per_gpu_node: int | None = Field(
        None,
        ge=1_000,
        description="Memory of a node of `gpu_partition`, in MB, as `sinfo -o %m` says: no job, even "
        "tried again, asks for more. null: no limit.",
    )
    memory_per_cpu_node: int | None = Field(
        None, ge=1_000, description="The same of `cpu_partition`."
    )
    before_job: str | None = Field(
        None,
        description="Shell commands before each job, such as `module load cuda`. They run in sh.",
    )
    train: Nodes = Field(default_factory=Nodes, description="Teachers and baselines.")
    pretrain: Nodes = Field(default_factory=Nodes, description="Students, on a selection.")
    finetune: Nodes = Field(default_factory=Nodes, description="Students, on labelled images.")

    @field_validator("gpu")
    @classmethod
    def _as_the_executor_takes_it(cls, value: str | None) -> str | None:
        if value and not re.fullmatch(r"\w+(:[\w.]+)?", value, re.ASCII):
            raise ValueError(
                f"the executor takes letters, digits, _ and . in the type of a GPU, not {value!r}; name "
                "such GPUs by `constraint`, and set gpu to gpu"
            )
        return value

    def precommand(self) -> str | None:
        """``before_job``, which may be of several lines and end with a comment, as part of a line."""
        text = (self.before_job or "").strip()
        return f"{{ {text}\n}}" if text else None

    def defaults(self) -> dict[str, Any]:
        """Resources of every rule that names none: a CPU job."""
        charged = {"slurm_account": self.account, "qos": self.qos}
        return _given(charged | {"slurm_partition": self.cpu_partition})

    def cpu_memory(self, first: int) -> str:
        """``mem_mb`` of a CPU job that asks for so much at its first try."""
        return _growing(first, self.memory_per_cpu_node)

    def gpu_job(self, minutes: int | str, gpus: int = 1) -> dict[str, Any]:
        """Resources of a job on GPUs; a job that is tried again gets more memory.

        ``minutes``: a number for what goes on where it was, else an expression with ``attempt``.
        """
        gres = self.gpu and f"{self.gpu}:{gpus}"
        named = {"slurm_partition": self.gpu_partition, "gres": gres, "constraint": self.constraint}
        memory = _growing(self.memory_per_gpu * gpus, self.memory_per_gpu_node)
        return _given(named) | {"runtime": minutes, "mem_mb": memory}

    def training(self, rule: str) -> dict[str, Any]:
        """Resources of a training: on one node a process or torchrun, on several srun + torchrun."""
        wanted: Nodes = getattr(self, rule)
        resources = self.gpu_job(60 * wanted.hours, wanted.gpus)
        resources |= {"ranks": wanted.gpus}
        if wanted.nodes > 1:
            # mpi: without it the executor runs the step inside a srun of one node, which can start no
            # other (see snakemake-executor-plugin-slurm 237). tasks_per_gpu: without it each GPU would
            # get `tasks` tasks (its issue 316). slurm_extra: one task a node, which starts the ranks of
            # all its GPUs; no other job may take the ports where they meet.
            several = {"nodes": wanted.nodes, "tasks": wanted.nodes, "mpi": "srun"}
            extra = {"tasks_per_gpu": 0, "slurm_extra": "--ntasks-per-node=1 --exclusive"}
            resources |= several | extra
        return resources

    def cpus(self, rule: str) -> int:
        """Cores of each node of a training."""
        wanted: Nodes = getattr(self, rule)
        return self.cpus_per_gpu * wanted.gpus


def read_site() -> Site:
    """The site of this folder; without a file, the defaults. Ends the program on a wrong one."""
    path = Path(os.environ.get(VARIABLE, "site.yaml"))
    if not path.exists() and VARIABLE not in os.environ:
        return Site()
    try:
        refuse_repeated_keys(path)
        return Site.model_validate(yaml.safe_load(path.read_text("utf-8")) or {})
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}. Correct {VARIABLE}.")
    except UnicodeDecodeError as error:
        sys.exit(f"{path} is not in UTF-8 ({error}). Save it as such.")
    except yaml.YAMLError as error:
        sys.exit(f"{path} is no YAML: {error}")
    except ConfigError as error:
        sys.exit(f"{path} cannot work:\n{error}")
    except ValidationError as error:
        sys.exit("\n".join([f"{path} cannot work:", *explain(error, Site)]))


def _growing(first: int, node: int | None) -> str:
    """Memory that grows with each try up to a node's: sbatch refuses what is larger than every node."""
    return f"min({first} * attempt, {node})" if node else f"{first} * attempt"


def _given(names: dict[str, str | None]) -> dict[str, Any]:
    """What is not null, in quotes: Snakemake evaluates resources (its issue 1707), `all` is a function."""
    return {key: repr(name) for key, name in names.items() if name is not None}
