"""What a run tells people: its summary, pictures of what the model sees, and how it differs from other runs.

summary.py       the end of a run, as a file and as a table
picture.py       boxes drawn on images
mfu.py           the rate as a share of the device's peak
side_by_side.py  runs and published systems in one table
spread.py        several runs as one number; ratios with intervals
equality.py      two runs that must be the same: where they part
"""
