"""MLPerf: the result log of a run, the rules of the rounds, other people's logs, packages, and the campaign for one.

Rulesets 0.7.0, 1.0.0 and 1.1.0 know this model; from 2.0 on "ssd" means another one, so no current round accepts a
result. What is written here is compared with the published results by those rounds' own rules (docs/submission.md).

    events.py         the result log, written as a run happens
    lines.py          its lines on the disk
    keys.py           the log keys of this project alone
    tensors.py        the names that the rules give to the model's weights
    limits.py         what a round asks for: limits of the closed division, reference convergence points
    records.py        the records of any round's result log
    results.py        any SSD result log -> one row
    result_table.py   such rows as JSON, CSV, and a table
    notice.py         what is said wherever such numbers are shown, and their source
    times.py          where the time of a log's run went
    system.py         the system description, made
    description.py    the system description of a package, checked
    runs.py           what a finished run left in its folder
    expectations.py   what a campaign says before its first run
    attempts.py       what a campaign has done so far: campaign.json
    series.py         the runs of a result, one after the other
    package.py        runs -> the folder a submitter hands in
    official_tools.py the checkers of mlperf-logging, their printed words read as verdicts
    logs.py           a result log as the checks read it, and what a check finds
    agreement.py      whether the files of one run agree
    log_checks.py     what they miss, on result logs
    evidence.py       runs counted twice, keys taken out, values that cannot be
    layout.py         what must lie where in a package; a copy of its regular files
    package_check.py  both together on a package, and its score
    commands.py       arguments of the verbs results, package and campaign

Nothing here imports torch. Of the package's other rooms only config is read, for what the roles of keys mean.
"""

__all__: list[str] = []
