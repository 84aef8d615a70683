"""The asv suite: `nox -s bench` runs it at this commit, `asv.conf.json` says how to build."""
