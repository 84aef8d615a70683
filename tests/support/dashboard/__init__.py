"""What the asv suite found, kept by commit and shown: as tables, and as one page that needs no net.

    .asv/results --runs--> Run --keeping--> tests/benchmarks/results --page, tables--> HTML, text

`python -m dashboard --help`; `nox -s bench_table` and `nox -s bench_publish` call it.
"""
