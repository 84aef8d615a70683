"""The same work for several servers in one run, and a table of what each made of it.

    servers --start, kill, URL--> workloads --load client--> Figures --> tables: JSON, Markdown, SVG

`python -m compare --help`; `nox -s compare` installs what it needs.
"""
