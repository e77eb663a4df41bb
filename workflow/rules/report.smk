# Needs: the tables of every stage.
# Makes: one self-contained page, and all accuracies in one table.


# Needs: counts, selections, duplicates, training curves, accuracies.
# Makes: the page a person opens first, and the configuration it was made with, which the next run
#        compares with its own to say what has changed.
rule report:
    input:
        **plan.report_inputs(),
        tars=ancient(plan.all_tars()),
    output:
        report="<results>/report.html",
        evaluations="<results>/evaluations.parquet",
        made_with="<results>/config.json",
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
        " --made-with {output.made_with:q}"
        " > {log:q} 2>&1"
