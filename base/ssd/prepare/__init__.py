"""What happens once, before any run: data fetched or drawn and checked, the backbone fetched, kernels built.

steps.py       the verb `prepare`: its steps, tried in turn
coco.py        a COCO folder, fetched, completed and checked
backbone.py    the file of the backbone, fetched and checked
coco_folder.py where the files of a COCO folder lie, and whether they are whole
fetch.py       a file from the network, resumed and verified
unpack.py      archives, and what must not come out of one
drawn.py       the demo's set, drawn
"""

__all__: list[str] = []
