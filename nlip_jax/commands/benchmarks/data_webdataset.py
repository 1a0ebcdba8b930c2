"""What open_clip runs: webdataset, Pillow and torch's DataLoader.

The pipeline is that of open_clip's `get_wds_dataset` (with resampled shards) and the crop that of
torchvision's `RandomResizedCrop` on Pillow images, bicubic. Like ours it ends at uint8 pixels;
open_clip's `ToTensor` and `Normalize` are part of it only where the output is "normalised". Where
torch is missing, processes that send their batches through pipes stand for the DataLoader.
"""

import importlib.util
import itertools
import json
import math
import multiprocessing
import random
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from PIL import Image

from nlip_jax.commands.benchmarks.data_contender import serve
from nlip_jax.data.text.sentence_piece import SentencePieceTokenizer
from nlip_jax.data.worker_process import die_with_parent

HAS_WEBDATASET = importlib.util.find_spec("webdataset") is not None
HAS_TORCH = importlib.util.find_spec("torch") is not None
LOADER = "torch DataLoader" if HAS_TORCH else "processes and pipes, for want of torch"

_SHUFFLE = 1000  # open_clip fills its buffer of 5000 with this many before the first batch
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_RATIO = (3 / 4, 4 / 3)


def make_dataset(
    *,
    shards: list[str],
    tokenizer: str,
    context_length: int,
    size: int,
    scale: tuple[float, float],
    batch_size: int,
    output: str,
) -> Any:
    """The endless webdataset pipeline of (images, tokens) batches.

    Args:
      shards: paths of tars.
      tokenizer: SentencePiece model.
      context_length: tokens of a row.
      size: of the crops, in pixels.
      scale: smallest and largest share of the area.
      batch_size: rows of a batch.
      output: a key of `OUTPUTS`.
    """
    import webdataset as wds

    make_images, make_tokens = OUTPUTS[output]
    pieces = SentencePieceTokenizer(tokenizer, context_length=context_length)

    def transform(image: Image.Image) -> Any:
        image = random_resized_crop(image, size=size, scale=scale).convert("RGB")
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return make_images(np.array(image))

    return wds.DataPipeline(
        wds.ResampledShards(shards),
        wds.tarfile_to_samples(),
        wds.shuffle(_SHUFFLE, initial=_SHUFFLE),
        wds.decode("pilrgb"),
        wds.rename(image="jpg;png;jpeg;webp", text="txt"),
        wds.map_dict(image=transform, text=lambda text: make_tokens(pieces.encode(text))),
        wds.to_tuple("image", "text"),
        wds.batched(batch_size, partial=False),
    )


def random_resized_crop(
    image: Image.Image, *, size: int, scale: tuple[float, float]
) -> Image.Image:
    """torchvision's transform of that name with `InterpolationMode.BICUBIC`."""
    width, height = image.size
    for _ in range(10):
        area = width * height * random.uniform(*scale)
        aspect = math.exp(random.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            break
    else:
        w = min(width, round(height * _RATIO[1]))
        h = min(height, round(width / _RATIO[0]))
        left, top = (width - w) // 2, (height - h) // 2
    return image.crop((left, top, left + w, top + h)).resize((size, size), Image.Resampling.BICUBIC)


def _tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array)


def _normalised(pixels: np.ndarray) -> Any:
    """`ToTensor` and `Normalize` of torchvision, `[3, h, w]` float32."""
    import torch

    tensor = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (_MEAN, _STD))
    return tensor.sub_(mean).div_(std)


# How `[h, w, 3]` uint8 pixels and rows of tokens leave the transforms.
OUTPUTS: dict[str, tuple[Callable[[np.ndarray], Any], Callable[[np.ndarray], Any]]] = {
    "array": (np.asarray, np.asarray),
    "tensor": (_tensor, _tensor),
    "normalised": (_normalised, _tensor),
}


def open_images(*, workers: int, output: str, **settings: Any) -> Iterator[Any]:
    """The images of endless batches; `settings` are those of `make_dataset`."""
    load = _pipes if output == "array" else _data_loader
    return (images for images, _ in load(workers, {**settings, "output": output}))


def _data_loader(workers: int, settings: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    import webdataset as wds

    dataset = make_dataset(**settings)
    yield from wds.WebLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=True)


def _pipes(workers: int, settings: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    context = multiprocessing.get_context("spawn")
    pipes = []
    for _ in range(workers):
        pipe, far_end = context.Pipe(duplex=False)
        context.Process(target=_send, args=(far_end, settings), daemon=True).start()
        far_end.close()
        pipes.append(pipe)
    for pipe in itertools.cycle(pipes):
        images = np.empty((settings["batch_size"], settings["size"], settings["size"], 3), np.uint8)
        pipe.recv_bytes_into(images.data.cast("B"))
        yield images, pipe.recv()


def _send(pipe: Connection, settings: dict[str, Any]) -> None:
    die_with_parent()
    for images, tokens in make_dataset(**settings):
        pipe.send_bytes(images.data.cast("B"))
        pipe.send(tokens)


if __name__ == "__main__":
    serve(open_images(**json.loads(sys.argv[1])))
