"""From files to batches: annotations, crops, decoding and the loaders.

batch.py        the batch types that every loader gives, and the protocol of a loader
annotations.py  parses COCO's annotation files
index.py        the images and boxes of an annotation file as flat arrays; an image is known by its row
index_cache.py  keeps indexes from one run to the next
mapped.py       files of arrays that every process on a host maps
texts.py        file names and ids as flat arrays
folder.py       where the files of a COCO folder lie
image_files.py  checks an image file without decoding it
sampler.py      which samples a rank trains on, and the random stream of each sample
streams.py      the first numbers of many random streams at once
crop.py         draws SSD's random crop, without touching pixels
draws.py        draws crops and colours of a whole batch at once: the bits of crop.py
jpeg.py         reads what a JPEG file's header claims, and refuses what is too large to decode
photo.py        reads any picture that a user gives to `detect`, by Pillow
decode.py       decodes a JPEG file to pixels
decoded_cache.py  keeps decoded training images in a file that every process maps
reading.py      how a loader reads image files
loader.py       data_backend = "threads", and the loader of the evaluation
resident.py     data_backend = "resident": images are decoded once and kept on the device (pixel_store.py)
dali.py         data_backend = "dali"
synthetic.py    data_backend = "synthetic": drawn images, no file at all
"""

from ssd.data.batch import EvalBatch, TrainBatch, TrainLoader

__all__ = ["EvalBatch", "TrainBatch", "TrainLoader"]
