"""Evaluates real towers on scenes, on any mesh; also run as one of several processes.

    python tests/evaluators/every_mesh.py RANK ADDRESS
"""

import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np


class Words:
    """Encodes the first words of a text by their checksums."""

    fingerprint, vocab_size, context_length = "words", 32, 6

    def encode(self, text: str) -> np.ndarray:
        tokens = np.zeros(6, np.int32)
        for place, word in enumerate(text.split()[:5]):
            tokens[place] = 4 + hashlib.sha256(word.encode()).digest()[0] % 28
        tokens[min(len(text.split()), 5)] = 3
        return tokens


def evaluate(mesh) -> dict[str, str | float]:
    """Metrics, and checksums of all ranks behind them."""
    from tiny import SIZE, clip, dual_encoder

    from nlip_jax.data.images.transform import ImageTransform
    from nlip_jax.data.labelled import LabelledSet
    from nlip_jax.data.pipeline import Reading
    from nlip_jax.data.synthetic import ClassScenes, SyntheticScenes
    from nlip_jax.evaluators.base import Towers
    from nlip_jax.evaluators.geometry import Geometry
    from nlip_jax.evaluators.knn import Knn
    from nlip_jax.evaluators.retrieval import Retrieval
    from nlip_jax.evaluators.zero_shot import ZeroShot
    from nlip_jax.sharding import num_row_shards, replicated
    from nlip_jax.train.map_examples import Mapper

    method = clip(model=dual_encoder())
    image, tokens = np.zeros((1, SIZE, SIZE, 3), np.float32), np.ones((1, 6), np.int32)
    with jax.default_device(jax.local_devices()[0]):
        variables = jax.tree.map(np.asarray, method.model.init(jax.random.key(0), image, tokens))
    rng = np.random.default_rng(1)  # farther apart than fresh towers lie
    variables = jax.tree.map(
        lambda leaf: np.float32(leaf + 0.1 * rng.normal(size=leaf.shape)), variables
    )
    everywhere = replicated(mesh)
    towers = Towers(
        variables=jax.tree.map(
            lambda leaf: jax.make_array_from_callback(
                leaf.shape, everywhere, lambda place, leaf=leaf: leaf[place]
            ),
            variables,
        ),
        image_features=method.image_features,
        pooled_features=method.pooled_features,
        text_features=method.text_features,
        similarity=method.similarity,
        tokenizer=Words(),
        transform=ImageTransform(size=SIZE),
        collect=Mapper(mesh=mesh, reading=Reading(threads=0)).collect,
        batch_size=4 * num_row_shards(mesh),  # rows of a device are what makes the bits
        mesh=mesh,
    )
    sets = {}
    for split in ("train", "validation"):
        scenes = ClassScenes(images_per_class=1, seed=0, image_size=SIZE, split=split)
        sets[split] = LabelledSet(
            source=scenes,
            labels=scenes.labels,
            class_names=scenes.class_names,
            templates=("{}", "one {}", "{} here"),
        )
    captioned = SyntheticScenes(num_examples=83, seed=0, image_size=SIZE, split="validation")
    evaluators = {
        "zero_shot/embeddings": ZeroShot(labelled=sets["validation"]),
        "zero_shot/similarities": ZeroShot(
            labelled=sets["validation"], ensemble="similarities"
        ),
        "retrieval/scenes": Retrieval(source=captioned),
        "geometry/scenes": Geometry(source=captioned),
        "knn/scenes": Knn(train=sets["train"], test=sets["validation"]),
    }
    found = {}
    for name, evaluator in evaluators.items():
        outcome = evaluator.run(towers)
        for metric, value in outcome.metrics.items():
            found[f"{name}/{metric}"] = value
        for metric, samples in outcome.samples.items():
            digest = hashlib.sha256(np.ascontiguousarray(samples.values).tobytes()).hexdigest()
            found[f"{name}/{metric}/sha256"] = digest
    found["embeddings"] = hashlib.sha256(
        towers.embed_images(captioned)["image_embed"].tobytes()
    ).hexdigest()
    return found


if __name__ == "__main__":
    rank, address = int(sys.argv[1]), sys.argv[2]
    root = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(root), str(root / "tests")]
    jax.config.update("jax_num_cpu_devices", 3)
    jax.distributed.initialize(address, num_processes=2, process_id=rank)
    from nlip_jax.sharding import make_mesh

    print(json.dumps(evaluate(make_mesh())))
