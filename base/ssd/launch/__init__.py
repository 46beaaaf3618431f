"""Starting and watching the processes and hosts of a run.

processes.py   this host's processes, by torchrun's agent; exit codes and first errors kept
hosts.py       the launchers of all hosts, watching each other
worker.py      one process of a run, leaving word of its end for the launcher
"""

__all__: list[str] = []
