# Needs: evaluation sets, unlabelled parts, the descriptor's weights.
# Makes: features, once for every image; the pairs closer than the recording distance, closest
#        first; the images that are the same, by bytes or pixels. What to remove is decided later, by
#        select: neither another cut nor another evaluation set describes U again.


# Needs: one part of an indexed dataset. Where duplicates.read_with names a teacher, what it scores
#        is described by score_and_describe instead.
# Makes: the L2-normalised feature of each image, and what its pixels tell, failures included.
rule extract_features:
    input:
        manifest="<results>/datasets/{dataset}/manifest-{part}.json",
        samples=ancient("<results>/datasets/{dataset}/samples-{part}.parquet"),
        tars=ancient(plan.dataset_tars),
        weights=plan.descriptor_weights,
    output:
        features=f"{plan.features}/{{dataset}}/part-{{part}}.parquet",
        images=f"{plan.features}/{{dataset}}/images-{{part}}.parquet",
    log:
        "<results>/logs/extract_features/{dataset}/{part}.log",
    benchmark:
        "<results>/benchmarks/extract_features/{dataset}/{part}.tsv"
    wildcard_constraints:
        dataset=plan.read_once(False),
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.extract_features,
    shell:
        "python -m semisup.steps.extract_features"
        " --settings {params.settings:q}"
        " --manifest {input.manifest:q}"
        " --weights {input.weights:q}"
        " --features {output.features:q}"
        " --images {output.images:q}"
        " --workers {threads}"
        " > {log:q} 2>&1"


# Needs: the features of the evaluation sets (they are the index), of one part (it streams past).
# Makes: the closest pairs of that part, and the closest evaluation image of each image.
rule find_duplicates:
    input:
        manifest="<results>/datasets/{dataset}/manifest-{part}.json",
        samples=ancient("<results>/datasets/{dataset}/samples-{part}.parquet"),
        features=f"{plan.features}/{{dataset}}/part-{{part}}.parquet",
        first_features=plan.first_evaluation_tables("part"),
        first_manifests=plan.first_evaluation_manifests(),
        evaluation=plan.evaluation_tables("part"),
        evaluation_manifests=plan.evaluation_manifests,
        evaluation_samples=ancient(plan.evaluation_samples),
    output:
        pairs="<results>/duplicates/{dataset}/part-{part}.parquet",
        nearest="<results>/duplicates/{dataset}/nearest-{part}.parquet",
    log:
        "<results>/logs/find_duplicates/{dataset}/{part}.log",
    benchmark:
        "<results>/benchmarks/find_duplicates/{dataset}/{part}.tsv"
    conda:
        "../../envs/semisup.yaml"
    threads: 2
    params:
        settings=plan.find_duplicates,
    shell:
        "python -m semisup.steps.find_duplicates"
        " --settings {params.settings:q}"
        " --manifest {input.manifest:q}"
        " --features {input.features:q}"
        " --evaluation-features {input.first_features:q}"
        " --evaluation-manifests {input.first_manifests:q}"
        " --pairs {output.pairs:q}"
        " --nearest {output.nearest:q}"
        " --workers {threads}"
        " > {log:q} 2>&1"


# Needs: the pairs of every part.
# Makes: the closest of all, closest first.
rule merge_duplicates:
    input:
        parts=plan.duplicate_parts,
    output:
        "<results>/duplicates/{dataset}/pairs.parquet",
    log:
        "<results>/logs/merge_duplicates/{dataset}.log",
    benchmark:
        "<results>/benchmarks/merge_duplicates/{dataset}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.merge_duplicates,
    shell:
        "python -m semisup.steps.merge_duplicates"
        " --settings {params.settings:q}"
        " --first-part {input.parts[0]:q}"
        " --pairs {output:q}"
        " > {log:q} 2>&1"


# Needs: the hashes of bytes and pixels of every part of U and of the evaluation sets.
# Makes: the images that are the same as an evaluation image, or as one earlier in U.
rule find_copies:
    input:
        images=plan.fingerprints,
        manifests=plan.dataset_manifests,
        samples=ancient(plan.dataset_samples),
        first_images=plan.first_evaluation_tables("images"),
        first_manifests=plan.first_evaluation_manifests(),
        evaluation=plan.evaluation_tables("images"),
        evaluation_manifests=plan.evaluation_manifests,
        evaluation_samples=ancient(plan.evaluation_samples),
    output:
        "<results>/duplicates/{dataset}/copies.parquet",
    log:
        "<results>/logs/find_copies/{dataset}.log",
    benchmark:
        "<results>/benchmarks/find_copies/{dataset}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.find_copies,
    shell:
        "python -m semisup.steps.find_copies"
        " --settings {params.settings:q}"
        " --first-images {input.images[0]:q}"
        " --first-manifest {input.manifests[0]:q}"
        " --evaluation-images {input.first_images:q}"
        " --evaluation-manifests {input.first_manifests:q}"
        " --copies {output:q}"
        " > {log:q} 2>&1"


# Needs: the closest pairs, and the tars that hold their images.
# Makes: a page on which a person decides about each pair; what it downloads, duplicates.remove.reviewed
#        may name.
rule make_review_page:
    input:
        pairs="<results>/duplicates/{dataset}/pairs.parquet",
        manifests=plan.dataset_manifests,
        samples=ancient(plan.dataset_samples),
        first_manifests=plan.first_evaluation_manifests(),
        evaluation_manifests=plan.evaluation_manifests,
        evaluation_samples=ancient(plan.evaluation_samples),
        tars=ancient(plan.dataset_tars),
        evaluation_tars=ancient(plan.evaluation_tars),
    output:
        "<results>/duplicates/{dataset}/review.html",
    log:
        "<results>/logs/make_review_page/{dataset}.log",
    benchmark:
        "<results>/benchmarks/make_review_page/{dataset}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.make_review_page,
    shell:
        "python -m semisup.steps.make_review_page"
        " --settings {params.settings:q}"
        " --pairs {input.pairs:q}"
        " --first-manifest {input.manifests[0]:q}"
        " --evaluation-manifests {input.first_manifests:q}"
        " --page {output:q}"
        " > {log:q} 2>&1"


# Needs: the evaluation sets, their features, the descriptor.
# Makes: the distances of near-duplicates planted on purpose, so that a cut is chosen by looking.
rule calibrate_duplicates:
    input:
        first_features=plan.first_evaluation_tables("part"),
        first_manifests=plan.first_evaluation_manifests(),
        evaluation=plan.evaluation_tables("part"),
        evaluation_manifests=plan.evaluation_manifests,
        evaluation_samples=ancient(plan.evaluation_samples),
        tars=ancient(plan.evaluation_tars),
        weights=plan.descriptor_weights,
    output:
        "<results>/duplicates/calibration.parquet",
    log:
        "<results>/logs/calibrate_duplicates.log",
    benchmark:
        "<results>/benchmarks/calibrate_duplicates.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.calibrate_duplicates,
    shell:
        "python -m semisup.steps.calibrate_duplicates"
        " --settings {params.settings:q}"
        " --evaluation-features {input.first_features:q}"
        " --evaluation-manifests {input.first_manifests:q}"
        " --weights {input.weights:q}"
        " --calibration {output:q}"
        " --workers {threads}"
        " > {log:q} 2>&1"


# Needs: the closest pairs of U and D, copies, what their pixels tell, the selections.
# Makes: the evaluation images with a near-duplicate in what may be learned from; the summary is
#        small, so that leaks that come out the same make nothing stale.
rule measure_leaks:
    input:
        pairs=plan.compared_pairs(),
        nearest=plan.compared_nearest(),
        copies=plan.compared_copies(),
        images=plan.compared_images(),
        evaluation=plan.evaluation_tables("images"),
        selections=plan.compared_selections(),
        reviewed=plan.reviewed(),
    output:
        leaks="<results>/duplicates/leaks.parquet",
        summary="<results>/duplicates/leaks.json",
    log:
        "<results>/logs/measure_leaks.log",
    benchmark:
        "<results>/benchmarks/measure_leaks.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.measure_leaks,
    shell:
        "python -m semisup.steps.measure_leaks"
        " --settings {params.settings:q}"
        " --results $(dirname $(dirname {output.leaks:q}))"
        " --leaks {output.leaks:q}"
        " --summary {output.summary:q}"
        " > {log:q} 2>&1"
