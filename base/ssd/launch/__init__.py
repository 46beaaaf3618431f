"""Starting and watching the processes and hosts of a run.

processes.py   starts this host's processes by torchrun's agent, and keeps exit codes and the root cause of a failure
hosts.py       the launchers of all hosts, which watch each other
numa.py        binds each process to the CPUs near its accelerator
worker.py      one process of a run, which writes how it ended for its launcher
"""

__all__: list[str] = []
