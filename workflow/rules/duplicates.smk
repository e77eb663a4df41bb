# Needs: the evaluation sets, the unlabelled parts, the descriptor's weights.
# Makes: all pairs of near-duplicates closer than the recording distance, sorted by distance, and
#        the byte-identical copies within U. What to remove is decided later, by select.


# Needs: an indexed evaluation set.
# Makes: the L2-normalised descriptor of each of its images.
rule extract_features:
    input:
        manifests=plan.dataset_manifests,
        samples=ancient(plan.dataset_samples),
        weights=plan.descriptor_weights,
    output:
        "<results>/features/{model}/{dataset}.parquet",
    log:
        "<results>/logs/extract_features/{model}/{dataset}.log",
    benchmark:
        "<results>/benchmarks/extract_features/{model}/{dataset}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.extract_features,
    shell:
        "python -m semisup.steps.extract_features"
        " --settings {params.settings:q}"
        " --manifests {input.manifests:q}"
        " --weights {input.weights:q}"
        " --features {output:q}"
        " --workers {threads}"
        " > {log:q} 2>&1"


# Needs: the features of the evaluation sets (they are the index), one part of U (it streams past).
# Makes: the pairs of that part.
rule find_duplicates:
    input:
        manifest="<results>/datasets/{unlabeled}/manifest-{part}.json",
        samples=ancient("<results>/datasets/{unlabeled}/samples-{part}.parquet"),
        features=plan.evaluation_features(),
        evaluation_manifests=plan.evaluation_manifests,
        evaluation_samples=ancient(plan.evaluation_samples),
        weights=plan.descriptor_weights,
    output:
        "<results>/duplicates/{unlabeled}/part-{part}.parquet",
    log:
        "<results>/logs/find_duplicates/{unlabeled}/{part}.log",
    benchmark:
        "<results>/benchmarks/find_duplicates/{unlabeled}/{part}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.find_duplicates,
    shell:
        "python -m semisup.steps.find_duplicates"
        " --settings {params.settings:q}"
        " --manifest {input.manifest:q}"
        " --features {input.features:q}"
        " --evaluation-manifests {input.evaluation_manifests:q}"
        " --weights {input.weights:q}"
        " --pairs {output:q}"
        " --workers {threads}"
        " > {log:q} 2>&1"


# Needs: the pairs of every part.
# Makes: all pairs, closest first.
rule merge_duplicates:
    input:
        parts=plan.duplicate_parts,
    output:
        "<results>/duplicates/{unlabeled}/pairs.parquet",
    log:
        "<results>/logs/merge_duplicates/{unlabeled}.log",
    benchmark:
        "<results>/benchmarks/merge_duplicates/{unlabeled}.tsv"
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


# Needs: the content hashes of every part of U.
# Makes: the images whose bytes stand earlier in U.
rule find_copies:
    input:
        manifests=plan.unlabeled_manifests,
        samples=ancient(plan.unlabeled_samples),
    output:
        "<results>/duplicates/{unlabeled}/copies.parquet",
    log:
        "<results>/logs/find_copies/{unlabeled}.log",
    benchmark:
        "<results>/benchmarks/find_copies/{unlabeled}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.find_copies,
    shell:
        "python -m semisup.steps.find_copies"
        " --settings {params.settings:q}"
        " --first-manifest {input.manifests[0]:q}"
        " --copies {output:q}"
        " > {log:q} 2>&1"
