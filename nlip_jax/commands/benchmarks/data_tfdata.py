"""What big_vision runs: a tf.data pipeline of TFRecords.

`decode_jpeg_and_inception_crop` (decode only the rows of the crop, resize bilinearly with
antialiasing) and `flip_lr` are written as big_vision's `pp` writes them, the options of the data
set as its `input_pipeline.make_for_train`. Captions are tokenised a batch at a time by our
SentencePiece tokeniser, for TensorFlow Text comes in no version for every TensorFlow; pixels stay
uint8, without `value_range`. Runs in any interpreter with tensorflow-cpu and sentencepiece.
"""

import json
import os
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nlip_jax.commands.benchmarks.data_contender import serve
from nlip_jax.data.text.sentence_piece import SentencePieceTokenizer

PYTHON_VARIABLE = "NLIP_JAX_TFDATA_PYTHON"
NEEDS = ("tensorflow", "sentencepiece")
_SHUFFLE = 1000


def open_images(
    *,
    shards: list[str],
    records: str,
    tokenizer: str,
    context_length: int,
    size: int,
    scale: tuple[float, float],
    batch_size: int,
    workers: int,
) -> Iterator[np.ndarray]:
    """Endless batches of images.

    Args:
      shards: paths of tars, copied to TFRecords if this was not done before.
      records: folder of the TFRecords.
      tokenizer: SentencePiece model.
      context_length: tokens of a row.
      size: of the crops, in pixels.
      scale: smallest and largest share of the area.
      batch_size: rows of a batch.
      workers: threads.

    Yields:
      `[b, size, size, 3]` uint8.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    encode = SentencePieceTokenizer(tokenizer, context_length=context_length)

    def parse(record):
        features = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "text")}
        example = tf.io.parse_single_example(record, features)
        return {"image": augment(example["image"]), "text": example["text"]}

    def augment(data):
        box = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(data),
            tf.zeros([0, 0, 4], tf.float32),
            area_range=scale,
            aspect_ratio_range=(0.75, 1.33),
            min_object_covered=0,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([box[0][:2], box[1][:2]], axis=0)
        image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
        image = tf.image.resize(image, (size, size), method="bilinear", antialias=True)
        image = tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8)
        return tf.image.random_flip_left_right(image)

    def tokenise(batch):
        tokens = tf.numpy_function(
            lambda texts: encode.encode_batch([text.decode() for text in texts]),
            [batch["text"]],
            tf.int32,
        )
        return {"image": batch["image"], "tokens": tokens}

    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    options.threading.max_intra_op_parallelism = 1
    data = (
        tf.data.TFRecordDataset(_write_records(shards, Path(records)))
        .repeat()
        .shuffle(_SHUFFLE)
        .map(parse, num_parallel_calls=workers)
        .batch(batch_size, drop_remainder=True)
        .map(tokenise)
        .prefetch(2)
        .with_options(options)
    )
    for batch in data:
        yield np.asarray(memoryview(batch["image"]))


def _write_records(shards: list[str], folder: Path) -> list[str]:
    """Copies image and caption of every example of the shards to a TFRecord each."""
    import tensorflow as tf

    if folder.is_dir():
        return sorted(map(str, folder.iterdir()))
    folder.mkdir()
    paths = []
    for shard in shards:
        paths.append(str(folder / f"{Path(shard).stem}.tfrecord"))
        with tarfile.open(shard) as tar, tf.io.TFRecordWriter(paths[-1]) as writer:
            members = {member.name: tar.extractfile(member).read() for member in tar}
            for name in sorted(name for name in members if name.endswith(".jpg")):
                values = {"image": members[name], "text": members[f"{name[:-4]}.txt"]}
                features = {
                    key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                    for key, value in values.items()
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
    return paths


if __name__ == "__main__":
    serve(open_images(**json.loads(sys.argv[1])))
