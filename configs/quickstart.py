"""The main job in minutes on two CPU cores: NLIP on 20,000 noisy procedural scenes.

    launch/local.sh
    launch/local.sh --config=configs/quickstart.py:method=clip

The second line trains CLIP on the same noisy pairs, for comparison.
"""

from ml_collections import ConfigDict

from configs import base, evaluators


def get_config(arg: str | None = None) -> ConfigDict:
    c = base.get_config()
    if arg:
        name, _, value = arg.partition("=")
        if name != "method":
            raise ValueError(f"configs/quickstart.py takes method=NAME, got {arg!r}")
        c.method = value

    c.total = "4000 steps"
    c.batch_size = 128
    c.data.synthetic.mismatched = 0.3
    c.data.synthetic.incomplete = 0.05
    c.data.synthetic.irrelevant = 0.05
    c.data.cache = "memory"
    c.data.threads = 1  # rows come from memory: more threads only wait for one another
    c.tokenizer.vocab_size = 1000
    c.tokenizer.context_length = 28

    c.model.embed_dim = 64
    c.model.scan = False  # two layers run faster unrolled
    tiny = {"width": 64, "depth": 2, "heads": 2}
    c.model.image.update({**tiny, "patch_size": 8, "pool": "mean"})
    c.model.text.update(tiny)

    c.nlip.warmup = "1000 steps"
    c.nlip.weight = 1.0
    c.optimizer.learning_rate = 1e-3
    c.checkpoint.every = "500 steps"
    c.log.every = "50 steps"

    c.evaluators.zero_shot.scenes = evaluators.zero_shot("class_scenes", evaluators.class_scenes())
    if c.method == "filip":  # there is no one embedding to average
        c.evaluators.zero_shot.scenes.ensemble = "similarities"
    held_out = base.synthetic_source()
    held_out.update({"num_examples": 1000, "split": "validation"})
    c.evaluators.retrieval.scenes = evaluators.retrieval("synthetic", held_out)
    return c
