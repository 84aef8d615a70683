"""The asv suite: `nox -s bench` runs it at this commit, `nox -s bench_compare` over two."""
