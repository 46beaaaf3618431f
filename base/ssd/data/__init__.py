"""From files to batches: annotations, crops, decoding, loaders. Imports nothing of ours but what stands at the bottom.

batch.py        the batch types that every loader gives, and what the train loop asks of a loader
annotations.py  COCO's annotation files, parsed
index.py        their images and boxes as flat arrays; images are known by row, categories by label
index_cache.py  indexes, kept from one run to the next
texts.py        file names and ids as flat arrays
folder.py       where the files of a COCO folder lie
image_files.py  an image file looked at, not decoded
sampler.py      which samples a rank trains on, and the random stream of each
crop.py         SSD's crop, drawn on numbers alone
jpeg.py         what a JPEG file claims, and whether that is too much
photo.py       any picture of a user's, by Pillow
decode.py       a JPEG file to pixels
loader.py       data_backend threads, and the evaluation's images
resident.py     data_backend resident: decoded once, kept on the device (pixel_store.py)
dali.py         data_backend dali
synthetic.py    data_backend synthetic: no file at all
"""

from ssd.data.batch import EvalBatch, TrainBatch, TrainLoader

__all__ = ["EvalBatch", "TrainBatch", "TrainLoader"]
