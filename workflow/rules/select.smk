# Needs: the scores of every part of U, and what must not be selected.
# Makes: the selection, as a table and as WebDataset shards.


# Needs: scores and the proof that they are complete, duplicates, copies, and the person's review of
#        the duplicates, if any, with the evaluation sets it is about.
# Makes: the best images of each class. The summary is small, so Snakemake compares its content:
#        a selection that comes out the same makes nothing stale.
rule select:
    input:
        scores=plan.selection_scores,
        manifests=plan.selection_manifests,
        samples=ancient(plan.selection_samples),
        counts=plan.selection_counts,
        failures=plan.selection_failures,
        classes=plan.selection_classes,
        nearest=plan.selection_nearest,
        first_nearest=plan.first_selection_nearest,
        pairs=plan.selection_pairs,
        copies=plan.selection_copies,
        near_copies=plan.selection_near_copies,
        reviewed=plan.reviewed,
        reviewed_manifests=plan.reviewed_manifests,
        reviewed_samples=ancient(plan.reviewed_samples),
    output:
        selection="<results>/selections/{selection}/selection.parquet",
        removed="<results>/selections/{selection}/removed.parquet",
        summary="<results>/selections/{selection}/summary.json",
        made_with="<results>/selections/{selection}/settings.json",
    log:
        "<results>/logs/select/{selection}.log",
    benchmark:
        "<results>/benchmarks/select/{selection}.tsv"
    conda:
        "../../envs/semisup.yaml"
    threads: 4
    params:
        settings=plan.select,
    shell:
        "python -m semisup.steps.select"
        " --settings {params.settings:q}"
        " --first-scores {input.scores[0]:q}"
        " --first-manifest {input.manifests[0]:q}"
        " --counts {input.counts:q}"
        " --failures {input.failures:q}"
        " --classes {input.classes:q}"
        " --first-nearest {input.first_nearest:q}"
        " --pairs {input.pairs:q}"
        " --copies {input.copies:q}"
        " --near-copies {input.near_copies:q}"
        " --reviewed {input.reviewed:q}"
        " --reviewed-manifests {input.reviewed_manifests:q}"
        " --selection {output.selection:q}"
        " --removed {output.removed:q}"
        " --summary {output.summary:q}"
        " --made-with {output.made_with:q}"
        " --workers {threads}"
        " > {log:q} 2>&1"


# Needs: the selection and the tars it was chosen from.
# Makes: one part of its shards, a sample for each class an image was selected for, and their index.
rule pack_selection:
    input:
        summary="<results>/selections/{selection}/summary.json",
        selection=ancient("<results>/selections/{selection}/selection.parquet"),
        source=ancient(plan.selection_tars),
    output:
        tars=directory("<results>/shards/{selection}/tars/{part}"),
        manifest="<results>/shards/{selection}/manifest-{part}.json",
        samples="<results>/shards/{selection}/samples-{part}.parquet",
    log:
        "<results>/logs/pack_selection/{selection}-{part}.log",
    benchmark:
        "<results>/benchmarks/pack_selection/{selection}-{part}.tsv"
    conda:
        "../../envs/semisup.yaml"
    threads: 8
    params:
        settings=plan.pack_selection,
    shell:
        "python -m semisup.steps.pack_selection"
        " --settings {params.settings:q}"
        " --selection {input.selection:q}"
        " --summary {input.summary:q}"
        " --tars {output.tars:q}"
        " --manifest {output.manifest:q}"
        " --samples {output.samples:q}"
        " --workers {threads}"
        " > {log:q} 2>&1"
