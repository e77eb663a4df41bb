# semisup: a teacher labels a mountain of images, the best of them train a student.
#
#   datasets    tars, indexed sample by sample: labelled D, unlabelled U, evaluation sets
#   train       the teacher on D (or import its weights)
#   duplicates  images of U that are near-duplicates of evaluation images
#   score       the teacher's best classes for every image of U, part by part
#   select      the best images of each class, minus duplicates: the selection
#   pack        the selection as WebDataset shards
#   train       pretrain the student on the selection, finetune it on D; the baseline
#   evaluate    every model on every evaluation set
#   report      one page that shows it all
#
# config.yaml says what is computed, profiles/ how and where. `snakemake -n` explains what is stale.

from snakemake.utils import min_version

min_version("9.27")


if "datasets" not in config:  # `--configfile FILE` replaces the demo, it does not mix with it

    configfile: "config.yaml"


include: "workflow/rules/plan.smk"


pathvars:
    results=plan.results,


include: "workflow/rules/datasets.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/duplicates.smk"
include: "workflow/rules/within.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/select.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


# Needs: the report, which needs everything.
rule all:
    default_target: True
    input:
        "<results>/report.html",
    localrule: True


onstart:
    orphans.refuse_doubles(workflow)


onsuccess:
    print(f"Done. Open {plan.results}/report.html; the tables are under {plan.results}/.")
