"""What happens once, before any run: data is downloaded or generated and checked, kernels are built.

steps.py       the verb `prepare`: its steps, one after the other
coco.py        downloads, completes and checks a COCO folder; draws the demo's set
backbone.py    downloads and checks the file of the backbone
coco_folder.py checks the annotations and images of a COCO folder
decoded_images.py  fills a run's decoded_cache before the run
fetch.py       downloads a file; a cut download is resumed, and the file is verified
unpack.py      unpacks an archive, and refuses unsafe members
drawn.py       how the images of the demo's set are drawn
"""

__all__: list[str] = []
