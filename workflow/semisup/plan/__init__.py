"""The wiring of the pipeline: inputs and settings of every rule, as functions of its wildcards.

The rule files say what each rule needs and makes; where that follows from the configuration they
name a method of :class:`Plan`. It is made in layers, a module for each stage of the pipeline, and a
layer knows those before it: datasets, models, scores, duplicates, selections, results. Paths start
with ``results``, the folder of the configuration.
"""

from semisup.plan.datasets import Wildcards
from semisup.plan.results import Plan

__all__ = ["Plan", "Wildcards"]
