"""Where the time of a run went: its parts, measured and added up, and what in them is unusual. Plain Python alone.

parts.py       the parts of a run's time: name, group, meaning
timeline.py    the time of one process, cut into parts that cannot overlap
books.py       measured parts and records -> the account of a run
anomalies.py   records -> what is unusual, in words
trace.py       records -> trace.json, for Perfetto
"""

__all__: list[str] = []
