"""Speed and memory, measured side by side: what `cbam bench` runs.

plan.py says what is measured, worker.py measures it in the process of one framework, report.py has
what was found. A file of `makers` builds the candidates of a framework, a file of `libraries` runs
them with an array library.
"""
