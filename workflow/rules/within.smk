# Needs: the features of U, and duplicates.within_unlabeled, or none of this is made.
# Makes: the images of U that are close to an earlier one. U is sorted into cells, and only images of
#        one cell are compared: what this costs grows as U where the cells do.


# Needs: the features of every part of U.
# Makes: the centroids of the cells, from a random share of the images.
rule train_cells:
    input:
        features=plan.dataset_features,
    output:
        "<results>/duplicates/{dataset}/centroids.parquet",
    log:
        "<results>/logs/train_cells/{dataset}.log",
    benchmark:
        "<results>/benchmarks/train_cells/{dataset}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.train_cells,
    shell:
        "python -m semisup.steps.train_cells"
        " --settings {params.settings:q}"
        " --first-features {input.features[0]:q}"
        " --centroids {output:q}"
        " > {log:q} 2>&1"


# Needs: one part of U.
# Makes: its features again, sorted by cell.
rule sort_into_cells:
    input:
        features=f"{plan.features}/{{dataset}}/part-{{part}}.parquet",
        centroids="<results>/duplicates/{dataset}/centroids.parquet",
    output:
        temp("<results>/duplicates/{dataset}/cells-{part}.parquet"),
    log:
        "<results>/logs/sort_into_cells/{dataset}/{part}.log",
    benchmark:
        "<results>/benchmarks/sort_into_cells/{dataset}/{part}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.sort_into_cells,
    shell:
        "python -m semisup.steps.sort_into_cells"
        " --settings {params.settings:q}"
        " --features {input.features:q}"
        " --centroids {input.centroids:q}"
        " --sorted {output:q}"
        " > {log:q} 2>&1"


# Needs: every part, sorted.
# Makes: the near-copies in one group of cells.
rule find_near_copies:
    input:
        cells=plan.sorted_parts,
    output:
        "<results>/duplicates/{dataset}/near_copies-{part}.parquet",
    log:
        "<results>/logs/find_near_copies/{dataset}/{part}.log",
    benchmark:
        "<results>/benchmarks/find_near_copies/{dataset}/{part}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.find_near_copies,
    shell:
        "python -m semisup.steps.find_near_copies"
        " --settings {params.settings:q}"
        " --first-cells {input.cells[0]:q}"
        " --near-copies {output:q}"
        " --workers {threads}"
        " > {log:q} 2>&1"


# Needs: the near-copies of every group of cells.
# Makes: all of them, by identity.
rule merge_near_copies:
    input:
        groups=plan.near_copies_groups,
    output:
        "<results>/duplicates/{dataset}/near_copies.parquet",
    log:
        "<results>/logs/merge_near_copies/{dataset}.log",
    benchmark:
        "<results>/benchmarks/merge_near_copies/{dataset}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.merge_near_copies,
    shell:
        "python -m semisup.steps.merge_near_copies"
        " --settings {params.settings:q}"
        " --first-group {input.groups[0]:q}"
        " --near-copies {output:q}"
        " > {log:q} 2>&1"
