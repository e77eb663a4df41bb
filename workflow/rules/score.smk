# Needs: the teacher's weights and the unlabelled parts.
# Makes: the P best classes of every image, and a status for every sample.


# Needs: one part of U.
# Makes: its scores, best of each class first, and one row per sample, failures included.
rule score_shards:
    input:
        manifest="<results>/datasets/{unlabeled}/manifest-{part}.json",
        samples=ancient("<results>/datasets/{unlabeled}/samples-{part}.parquet"),
        tars=ancient(plan.unlabeled_tars),
        weights=plan.teacher_weights,
    output:
        scores="<results>/scores/{teacher}/{unlabeled}/part-{part}.parquet",
        images="<results>/scores/{teacher}/{unlabeled}/images-{part}.parquet",
    log:
        "<results>/logs/score_shards/{teacher}/{unlabeled}/{part}.log",
    benchmark:
        "<results>/benchmarks/score_shards/{teacher}/{unlabeled}/{part}.tsv"
    wildcard_constraints:
        teacher=plan.other_teachers(),
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


# Needs: one part of U, and that duplicates.read_with names the teacher.
# Makes: its scores as score_shards does, and its features as extract_features does, in one pass.
rule score_and_describe:
    input:
        manifest="<results>/datasets/{unlabeled}/manifest-{part}.json",
        samples=ancient("<results>/datasets/{unlabeled}/samples-{part}.parquet"),
        tars=ancient(plan.unlabeled_tars),
        weights=plan.read_with_weights,
        descriptor=plan.descriptor_weights,
    output:
        scores=f"{plan.scores_read_with}/{{unlabeled}}/part-{{part}}.parquet",
        images=f"{plan.scores_read_with}/{{unlabeled}}/images-{{part}}.parquet",
        features=f"{plan.features}/{{unlabeled}}/part-{{part}}.parquet",
        described=f"{plan.features}/{{unlabeled}}/images-{{part}}.parquet",
    log:
        "<results>/logs/score_and_describe/{unlabeled}/{part}.log",
    benchmark:
        "<results>/benchmarks/score_and_describe/{unlabeled}/{part}.tsv"
    wildcard_constraints:
        unlabeled=plan.read_once(True),
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.score_and_describe,
    shell:
        "python -m semisup.steps.score_and_describe"
        " --settings {params.settings:q}"
        " --manifest {input.manifest:q}"
        " --weights {input.weights:q}"
        " --descriptor {input.descriptor:q}"
        " --scores {output.scores:q}"
        " --images {output.images:q}"
        " --features {output.features:q}"
        " --described {output.described:q}"
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
