# Needs: the tables of every stage.
# Makes: one self-contained page, and all accuracies in one table.


# Needs: counts, selections, duplicates, training curves, accuracies.
# Makes: the page a person opens first.
rule report:
    input:
        **plan.report_inputs(),
    output:
        report="<results>/report.html",
        evaluations="<results>/evaluations.parquet",
    log:
        "<results>/logs/report.log",
    benchmark:
        "<results>/benchmarks/report.tsv"
    conda:
        "../../envs/semisup.yaml"
    params:
        settings=plan.report,
    shell:
        "python -m semisup.steps.report"
        " --settings {params.settings:q}"
        " --results $(dirname {output.report:q})"
        " --report {output.report:q}"
        " --evaluations {output.evaluations:q}"
        " > {log:q} 2>&1"
