"""The two pages of documentation that are made of measurements: performance and production.

    docs/data/*.json, tests/benchmarks/results --Data--> performance, production --> docs/*.md

`nox -s report` writes them; a test holds the pages to the data that lie beside them.
"""
