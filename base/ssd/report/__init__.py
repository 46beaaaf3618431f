"""What a run tells people: its summary, its report, pictures of what the model sees, and how it differs from others.

summary.py       the end of a run, as a file and as a table
story.py         a run, as its files tell it
log_story.py     a result log, as a story
page.py          the story as report.html
figures.py       its sections that are drawn
svg.py           curves and bars
style.py         the look of the page
picture.py       boxes drawn on images
mfu.py           the rate as a share of the device's peak
side_by_side.py  runs and published systems in one table
spread.py        several runs as one number; ratios with intervals
profiled.py      a trace of torch's profiler, read
equality.py      two runs that must be the same: where they part
"""
