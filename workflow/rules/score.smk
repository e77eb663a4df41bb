# Needs: the teacher's weights and the unlabelled parts.
# Makes: the P best classes of every image, and a status for every sample.


# Needs: one part of U.
# Makes: its scores, best of each class first, and one row per sample, failures included.
rule score_shards:
    input:
        manifest="<results>/datasets/{unlabeled}/manifest-{part}.json",
        samples=ancient("<results>/datasets/{unlabeled}/samples-{part}.parquet"),
        weights=plan.teacher_weights,
    output:
        scores="<results>/scores/{teacher}/{unlabeled}/part-{part}.parquet",
        images="<results>/scores/{teacher}/{unlabeled}/images-{part}.parquet",
    log:
        "<results>/logs/score_shards/{teacher}/{unlabeled}/{part}.log",
    benchmark:
        "<results>/benchmarks/score_shards/{teacher}/{unlabeled}/{part}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.score_shards,
    shell:
        "python -m semisup.steps.score_shards"
        " --settings {params.settings:q}"
        " --manifest {input.manifest:q}"
        " --weights {input.weights:q}"
        " --scores {output.scores:q}"
        " --images {output.images:q}"
        " --workers {threads}"
        " > {log:q} 2>&1"


# Needs: the status of every sample of U, and the scores.
# Makes: the proof that none is missing, the counts by status, and the list of failures.
rule count_images:
    input:
        scores=plan.scores_parts,
        images=plan.images_parts,
        manifests=plan.unlabeled_manifests,
        samples=ancient(plan.unlabeled_samples),
    output:
        counts="<results>/scores/{teacher}/{unlabeled}/images.json",
        failures="<results>/scores/{teacher}/{unlabeled}/failures.parquet",
    log:
        "<results>/logs/count_images/{teacher}/{unlabeled}.log",
    benchmark:
        "<results>/benchmarks/count_images/{teacher}/{unlabeled}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.count_images,
    shell:
        "python -m semisup.steps.count_images"
        " --settings {params.settings:q}"
        " --first-scores {input.scores[0]:q}"
        " --first-images {input.images[0]:q}"
        " --first-manifest {input.manifests[0]:q}"
        " --counts {output.counts:q}"
        " --failures {output.failures:q}"
        " > {log:q} 2>&1"
