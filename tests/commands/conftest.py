import signal

import pytest

from nlip_jax import phases
from nlip_jax.__main__ import main

# A run of the quickstart that takes seconds: every part of it, at the smallest sizes.
TINY = (
    "--config=configs/quickstart.py",
    "--config.total=12 steps",
    "--config.nlip.warmup=8 steps",
    "--config.checkpoint.every=4 steps",
    "--config.log.every=2 steps",
    "--config.batch_size=24",
    "--config.evaluation.rows_per_device=4",
    "--config.schedule.warmup=2 steps",
    "--config.data.synthetic.num_examples=100",
    "--config.data.image_size=16",
    "--config.tokenizer.vocab_size=300",
    "--config.model.embed_dim=8",
    "--config.model.image.width=8",
    "--config.model.image.heads=2",
    "--config.model.image.depth=1",
    "--config.model.text.width=8",
    "--config.model.text.heads=2",
    "--config.model.text.depth=1",
    "--config.evaluators.retrieval.scenes.synthetic.num_examples=30",
    "--config.evaluators.zero_shot.scenes.class_scenes.images_per_class=1",
)


@pytest.fixture
def tiny() -> tuple[str, ...]:
    return TINY


@pytest.fixture
def command(monkeypatch, capsys, request):
    """Runs a command in this process, from the root of the checkout: (exit code, out, err)."""
    monkeypatch.chdir(request.config.rootpath)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(list(argv))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    phases.start_log(None)
