"""A run made ready: everything a config names, built and checked, nothing compiled yet."""

import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax import build, phases, sharding
from nlip_jax.build.texts import Texts
from nlip_jax.columns import ColumnVersion
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.commands.texts import open_texts
from nlip_jax.config import Clock
from nlip_jax.data.cache import MemoryCache
from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.loading import LoadPair
from nlip_jax.data.members import Members
from nlip_jax.data.order import Draw, Stream
from nlip_jax.data.quarantine import Quarantine
from nlip_jax.data.source import Source
from nlip_jax.data.text.tokenizer import Tokenizer
from nlip_jax.errors import UsageError
from nlip_jax.methods.base import Method
from nlip_jax.train import stop
from nlip_jax.train.accumulation import MicroBatches
from nlip_jax.train.loop import Plan
from nlip_jax.train.map_examples import Mapper
from nlip_jax.train.spikes import SpikePolicy
from nlip_jax.train.state import StateFactory
from nlip_jax.train.step import train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """The parts of a run, by the names that `build/` gives them."""

    config: ConfigDict
    workdir: Path
    mesh: Mesh
    micro_batches: MicroBatches | None
    source: Source
    draw: Draw
    tokenizer: Tokenizer
    transform: ImageTransform
    clock: Clock
    plan: Plan
    method: Method
    schedule: Any
    tx: Any
    spike_policy: SpikePolicy | None
    mapper: Mapper
    evaluators: dict[str, Any]
    fingerprint: str
    texts: Texts
    given_columns: dict[str, np.ndarray]

    @property
    def load(self) -> LoadPair:
        """Makes training rows."""
        masks = "masked_tokens" in self.method.inputs
        return dataclasses.replace(
            self.load_plain,
            transform=self.transform,
            second_view="image_view" in self.method.inputs,
            mask=build.make_mask(self.config, self.tokenizer) if masks else None,
        )

    @property
    def load_plain(self) -> LoadPair:
        """Makes rows of images and tokens without augmentation, for passes over the data set."""
        return LoadPair(
            source=self.source,
            tokenizer=self.tokenizer,
            transform=self.transform.without_augmentation(),
            numbers_images="image_id" in self.method.inputs,
        )

    @property
    def order(self) -> Stream:
        """Order of the training examples."""
        rows = sharding.local_rows(self.config.batch_size, self.mesh)
        return Stream(
            draw=self.draw,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            rows=rows,
        )

    @property
    def members(self) -> Members:
        """The examples that take part."""
        return self.draw.members

    @property
    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a global training batch."""
        return batch_shapes(self.config, self.method)

    @property
    def factory(self) -> StateFactory:
        """Makes the state."""
        return StateFactory(
            method=self.method,
            tx=self.tx,
            placement=build.make_placement(self.config, mesh=self.mesh),
            batch=self.batch,
            seed=self.config.seed,
            ema=self.config.ema.decay > 0,
            watches_loss=self.spike_policy is not None,
        )

    def given_params(self) -> dict[str, np.ndarray]:
        """The parameters of step 0 that are read rather than drawn, by name.

        Raises:
          UsageError: they are not there, or do not fit the model.
        """
        if not build.starts_from_bart(self.config):
            return {}
        params = self.factory.abstract().params
        return build.read_bart(self.config, tokenizer=self.tokenizer, params=params)

    @property
    def step(self) -> Callable:
        """The training step, to be compiled."""
        return functools.partial(
            train_step,
            method=self.method,
            tx=self.tx,
            schedule=self.schedule,
            seed=self.config.seed,
            micro_batches=self.micro_batches,
            ema_decay=self.config.ema.decay,
            spike_policy=self.spike_policy,
        )

    @property
    def data_description(self) -> dict[str, Any]:
        """What data.json says of the data of a run."""
        concepts = self.texts.concepts
        return {
            "fingerprint": self.fingerprint,
            "num_examples": len(self.draw),
            "vocab_size": self.tokenizer.vocab_size,
            **({"concepts": concepts.fingerprint} if concepts is not None else {}),
        }

    def column(self, name: str, version: int, *, key: str = "") -> ColumnVersion:
        """A version of a column of this run."""
        return ColumnVersion(
            directory=self.workdir / "columns" / name / f"{version:04d}",
            key=key,
            made_for=dataclasses.asdict(self.source.numberings[-1]),
        )

    def quarantine(self, meta: dict[str, Any]) -> Quarantine:
        """Takes down what this process cannot read; goes on from the `meta` of a checkpoint."""
        process = jax.process_index()
        name = f"quarantine-{process:05d}.jsonl" if process else "quarantine.jsonl"
        return Quarantine(
            self.workdir / name,
            source=self.source,
            max_bad_fraction=self.config.data.max_bad_fraction,
            counts=meta.get("failed_examples") if process == 0 else None,
            window=meta.get("failed_window", (0, 0)),
        )


def batch_shapes(config: ConfigDict, method: Method) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a global training batch."""
    b, size = config.batch_size, config.data.image_size
    length = config.tokenizer.context_length
    joined = {name: method.joined(name) for name in method.columns}
    columns = {
        name: jax.ShapeDtypeStruct((b, *one.shape), one.dtype) for name, one in joined.items()
    }
    image = jax.ShapeDtypeStruct((b, size, size, 3), np.uint8)
    tokens = jax.ShapeDtypeStruct((b, length), np.int32)
    inputs = {
        "image_view": {"image_view": image},
        "masked_tokens": {"masked_tokens": tokens, "mask_labels": tokens},
        "image_id": {"image_id": jax.ShapeDtypeStruct((b,), np.int32)},
    }
    batch = {"image": image, "tokens": tokens, **columns}
    for name in method.inputs:
        batch |= inputs[name]
    return batch


def start_processes() -> None:
    """Joins the other processes of this run, where the environment says that there are some.

    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID name them; with
    NLIP_JAX_DISTRIBUTED=1 JAX asks the cluster it runs on (TPU pods, SLURM, GKE).

    Raises:
      UsageError: a variable is missing or no number.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address:
        try:
            count, index = (int(os.environ[f"JAX_{n}"]) for n in ("NUM_PROCESSES", "PROCESS_ID"))
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"JAX_COORDINATOR_ADDRESS={address} also needs JAX_NUM_PROCESSES and "
                f"JAX_PROCESS_ID as numbers: {error}"
            ) from error
        jax.distributed.initialize(address, num_processes=count, process_id=index)
    elif os.environ.get("NLIP_JAX_DISTRIBUTED"):
        jax.distributed.initialize()


def open_session(config: ConfigDict, workdir: Path) -> Session:
    """Builds all parts of a run; whatever is wrong with a config or its data is found here.

    Raises:
      UsageError: one line with the value, the rule and the choices.
    """
    check_numbers(config)
    mesh = build.make_mesh(config)
    micro_batches = build.make_micro_batches(config, mesh=mesh)
    reading = build.make_reading(config)
    transform = build.make_transform(config)
    evaluators = build.make_evaluators(config, workdir, can_caption=build.can_caption(config))
    _check_keep_column(config, workdir)
    source = build.open_training_source(config, workdir)
    draw = build.make_draw(config, source=source)
    clock = build.make_clock(config, num_examples=len(draw))
    schedule = build.make_learning_rate(config, clock=clock)
    tokenizer = build.open_tokenizer(config, source=source, workdir=workdir)
    model = build.make_model(config, vocab_size=tokenizer.vocab_size, mesh=mesh)
    texts = open_texts(config, source=source, tokenizer=tokenizer, workdir=workdir, mesh=mesh)
    method = build.make_method(config, model=model, mesh=mesh, clock=clock, texts=texts)
    if method.columns and source.draws_captions:
        raise UsageError(
            f"config.data.source={config.data.source!r} with captions='sample' gives a pair "
            "another caption each epoch, so it has no lasting noise probability; "
            f"method={config.method} needs captions='expand'"
        )
    session = Session(
        config=config,
        workdir=workdir,
        mesh=mesh,
        micro_batches=micro_batches,
        source=source,
        draw=draw,
        tokenizer=tokenizer,
        transform=transform,
        clock=clock,
        plan=build.make_plan(config, clock=clock, refresh_steps=method.refresh_steps),
        method=method,
        schedule=schedule,
        tx=build.make_tx(config, schedule=schedule),
        spike_policy=build.make_spike_policy(config, clock=clock),
        mapper=Mapper(mesh=mesh, reading=reading),
        evaluators=evaluators,
        fingerprint=build.data_fingerprint(
            config, source=source, draw=draw, tokenizer=tokenizer
        ),
        texts=texts,
        given_columns=build.given_columns(config, source=source, tokenizer=tokenizer),
    )
    session.factory.abstract()  # the rules of config.mesh meet the parameters
    return session


def _check_keep_column(config: ConfigDict, workdir: Path) -> None:
    """Refuses to choose examples by a column that this very run will write."""
    column = Path(config.data.keep_column).expanduser().resolve()
    if config.data.keep_column and column.is_relative_to(workdir.resolve()):
        raise UsageError(
            f"config.data.keep_column={config.data.keep_column} lies in the --workdir of this run, "
            "which makes its columns itself: choose another --workdir"
        )


def with_cache(session: Session) -> Session:
    """The session with its images in memory, if the config says so."""
    if session.config.data.cache != "memory":
        return session
    phases.enter("fill_cache")
    data = session.config.data
    cache = MemoryCache(session.source, data.cache_bytes, max_pixels=data.max_pixels)

    def on_progress(done: int, total: int) -> None:
        stop.check()
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r\x1b[Kimages in memory: {done:,}/{total:,}", end=end, file=sys.stderr)

    processes = (os.cpu_count() or 1) if session.source.num_images >= 2_000 else 0
    cache.fill(processes, on_progress=on_progress)
    return dataclasses.replace(session, source=cache)
