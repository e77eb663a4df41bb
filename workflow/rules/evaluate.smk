# Needs: the weights of every stage of every model, and the evaluation sets.
# Makes: accuracies with their intervals, and every prediction.


# Needs: one stage of one model, all evaluation sets.
# Makes: a row per evaluation set, and a row per prediction.
rule evaluate:
    input:
        manifests=plan.evaluation_manifests,
        samples=ancient(plan.evaluation_samples),
        tars=ancient(plan.evaluation_tars),
        weights="<results>/models/{model}/{stage}/weights.pt",
    output:
        evaluations="<results>/evaluations/{model}/{stage}.parquet",
        predictions="<results>/predictions/{model}/{stage}.parquet",
    log:
        "<results>/logs/evaluate/{model}/{stage}.log",
    benchmark:
        "<results>/benchmarks/evaluate/{model}/{stage}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.evaluate,
    shell:
        "python -m semisup.steps.evaluate"
        " --settings {params.settings:q}"
        " --manifests {input.manifests:q}"
        " --weights {input.weights:q}"
        " --evaluations {output.evaluations:q}"
        " --predictions {output.predictions:q}"
        " --workers {threads}"
        " > {log:q} 2>&1"


# Needs: the student of one learning rate of a sweep, and the images that choose.
# Makes: how good it is on them.
use rule evaluate as evaluate_candidate with:
    input:
        manifests=plan.choosing_manifests,
        samples=ancient(plan.choosing_samples),
        tars=ancient(plan.choosing_tars),
        weights="<results>/models/{model}/{stage}/{candidate}/weights.pt",
    output:
        evaluations="<results>/models/{model}/{stage}/{candidate}/evaluations.parquet",
        predictions="<results>/models/{model}/{stage}/{candidate}/predictions.parquet",
    log:
        "<results>/logs/evaluate/{model}/{stage}/{candidate}.log",
    benchmark:
        "<results>/benchmarks/evaluate_candidate/{model}/{stage}/{candidate}.tsv"
    wildcard_constraints:
        stage="finetune",
        candidate="base_lr-[^/]+",
    params:
        settings=plan.evaluate_candidate,
