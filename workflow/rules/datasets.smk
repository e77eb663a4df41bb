# Needs: the tars or folders the configuration names, or nothing for the built-in sets.
# Makes: per part of a dataset, a table of its samples and a small manifest of its shards.


# Needs: scikit-learn's digits and photographs, which its package ships.
# Makes: a labelled set, validation, test, and an unlabelled set with realistic dirt.
rule make_digits:
    output:
        tars=expand(
            "<results>/datasets/builtin/digits/{shard}.tar",
            shard=plan.builtin_shards("digits"),
        ),
    log:
        "<results>/logs/make_digits.log",
    benchmark:
        "<results>/benchmarks/make_digits.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.make_digits,
    shell:
        "python -m semisup.steps.make_digits"
        " --settings {params.settings:q}"
        " --output $(dirname {output.tars[0]:q})"
        " > {log:q} 2>&1"


# Needs: CIFAR-10 in ../shared/data, or the network.
# Makes: a labelled set of a few images per class, the rest with clutter as unlabelled set, test.
rule make_cifar10:
    output:
        tars=expand(
            "<results>/datasets/builtin/cifar10-{{num_labels}}/{shard}.tar",
            shard=plan.builtin_shards("cifar10"),
        ),
    log:
        "<results>/logs/make_cifar10-{num_labels}.log",
    benchmark:
        "<results>/benchmarks/make_cifar10-{num_labels}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.make_cifar10,
    shell:
        "python -m semisup.steps.make_cifar10"
        " --settings {params.settings:q}"
        " --output $(dirname {output.tars[0]:q})"
        " > {log:q} 2>&1"


# Needs: a folder of images, with one sub-folder per class where it is labelled.
# Makes: its tars; image bytes are copied, never re-encoded.
rule pack_folder:
    output:
        directory("<results>/datasets/{dataset}/tars"),
    log:
        "<results>/logs/pack_folder/{dataset}.log",
    benchmark:
        "<results>/benchmarks/pack_folder/{dataset}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.pack_folder,
    shell:
        "python -m semisup.steps.pack_folder"
        " --settings {params.settings:q}"
        " --output {output:q}"
        " > {log:q} 2>&1"


# Needs: the tars of one part; a user's own are watched by name, size and time, not declared, so
#        that a copied folder is hashed again but never scored again.
# Makes: a row for every sample in them, broken ones included, and a manifest with their hashes.
rule index_shards:
    input:
        plan.shards_to_make,
    output:
        manifest="<results>/datasets/{dataset}/manifest-{part}.json",
        samples="<results>/datasets/{dataset}/samples-{part}.parquet",
    log:
        "<results>/logs/index_shards/{dataset}/{part}.log",
    benchmark:
        "<results>/benchmarks/index_shards/{dataset}/{part}.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.index_shards,
    shell:
        "python -m semisup.steps.index_shards"
        " --settings {params.settings:q}"
        " --manifest {output.manifest:q}"
        " --samples {output.samples:q}"
        " > {log:q} 2>&1"
