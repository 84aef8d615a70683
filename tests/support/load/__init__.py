"""Load on any server that speaks OpenAI's chat completions, and what came of it.

    scenarios --> Due(at, send) --> workers --> client --HTTP--> server
                                       `--> RequestResult --> summary --> Report
    memory samples of the server's process go beside ----------------^

`python -m load --help` runs a scenario against a URL; `tests/stress` runs them against servers of
its own. Nothing here knows Dovecote but by what it answers.
"""
