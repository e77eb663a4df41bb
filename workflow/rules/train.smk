# Needs: an indexed dataset or a packed selection, and the weights to start from, if any.
# Makes: the weights of each stage of each model, and a table of how the training went.


# Needs: a local checkpoint, or the network for torchvision's weights.
# Makes: the same weights with their classes and image size, as every other stage writes them.
rule import_weights:
    input:
        plan.weights_file,
    output:
        weights="<results>/models/{model}/imported/weights.pt",
        classes="<results>/models/{model}/imported/classes.txt",
    log:
        "<results>/logs/import_weights/{model}.log",
    benchmark:
        "<results>/benchmarks/import_weights/{model}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.import_weights,
    shell:
        "python -m semisup.steps.import_weights"
        " --settings {params.settings:q}"
        " --weights {output.weights:q}"
        " --classes {output.classes:q}"
        " > {log:q} 2>&1"


# Needs: labelled images. Checkpoints are no declared outputs: they survive a killed job.
# Makes: a teacher, or a supervised baseline, by any number of nodes and ranks (one a GPU) on each.
rule train:
    input:
        manifests=plan.training_data,
        samples=ancient(plan.training_samples),
        tars=ancient(plan.training_tars),
        init=plan.initial_weights,
    output:
        weights="<results>/models/{model}/{stage}/weights.pt",
        classes="<results>/models/{model}/{stage}/classes.txt",
        metrics="<results>/models/{model}/{stage}/metrics.parquet",
    log:
        "<results>/logs/{stage}/{model}.log",
    benchmark:
        "<results>/benchmarks/{stage}/{model}.tsv"
    wildcard_constraints:
        stage="train",
    conda:
        "../../envs/semisup.yaml"
    threads: 8
    resources:
        nodes=1,
        ranks=1,
        wandb=plan.wandb,
    params:
        settings=plan.train,
    shell:
        "python -m semisup.launch --nodes {resources.nodes} --ranks {resources.ranks}"
        " --cpus {threads} --logs $(dirname {output.weights:q})/logs"
        " train"
        " --settings {params.settings:q}"
        " --manifests {input.manifests:q}"
        " --init {input.init:q}"
        " --checkpoints $(dirname {output.weights:q})/checkpoints"
        " --weights {output.weights:q}"
        " --classes {output.classes:q}"
        " --metrics {output.metrics:q}"
        " --workers {threads}"
        " --wandb={resources.wandb}"
        " > {log:q} 2>&1"


# Needs: a packed selection.
# Makes: a student that knows what its teacher chose.
use rule train as pretrain with:
    wildcard_constraints:
        stage="pretrain",


# Needs: labelled images and the weights of the stage before.
# Makes: the student.
use rule train as finetune with:
    wildcard_constraints:
        stage="finetune",
        model=plan.models_with_sweep(False),


# Needs: what finetune needs.
# Makes: the student as one learning rate of a sweep makes it.
use rule train as finetune_candidate with:
    output:
        weights="<results>/models/{model}/{stage}/{candidate}/weights.pt",
        classes="<results>/models/{model}/{stage}/{candidate}/classes.txt",
        metrics="<results>/models/{model}/{stage}/{candidate}/metrics.parquet",
    log:
        "<results>/logs/{stage}/{model}/{candidate}.log",
    benchmark:
        "<results>/benchmarks/{stage}_candidate/{model}/{candidate}.tsv"
    wildcard_constraints:
        stage="finetune",
        candidate="base_lr-[^/]+",
    params:
        settings=plan.train_candidate,


# Needs: the students of a sweep, and how good they are on images that no reported figure uses.
# Makes: the best of them the student, and a table of all.
rule choose_candidate:
    input:
        weights=plan.candidate_weights,
        classes=plan.candidate_classes,
        metrics=plan.candidate_metrics,
        evaluations=plan.candidate_evaluations,
    output:
        weights="<results>/models/{model}/finetune/weights.pt",
        classes="<results>/models/{model}/finetune/classes.txt",
        metrics="<results>/models/{model}/finetune/metrics.parquet",
        sweep="<results>/models/{model}/finetune/sweep.parquet",
    log:
        "<results>/logs/choose_candidate/{model}.log",
    benchmark:
        "<results>/benchmarks/choose_candidate/{model}.tsv"
    wildcard_constraints:
        model=plan.models_with_sweep(True),
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.choose_candidate,
    shell:
        "python -m semisup.steps.choose_candidate"
        " --settings {params.settings:q}"
        " --candidates {input.weights:q}"
        " --evaluations {input.evaluations:q}"
        " --weights {output.weights:q}"
        " --classes {output.classes:q}"
        " --metrics {output.metrics:q}"
        " --sweep {output.sweep:q}"
        " > {log:q} 2>&1"
