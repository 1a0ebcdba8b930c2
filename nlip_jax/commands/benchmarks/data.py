"""The data plane: its speed beside other loaders', what it costs a host, and its index.

Speed is images per CPU second of all processes, which tells more about a loader and less about
what else the machine does than the rate by the clock, given beside it.
"""

import tempfile
from pathlib import Path

from nlip_jax.commands.benchmarks import data_host, data_index, data_quality, data_speed
from nlip_jax.commands.benchmarks.data_setting import prepare


def run() -> dict[str, float]:
    """Runs every part; takes some minutes on two cores.

    Returns:
      Metrics by name; "data/scale_S/workers_W/..." is at crops of S to 1 of the area and with W
      workers, a name without them at (0.9, 1) and 2 workers. Those of pipelines that cannot run
      here are missing, and a line says why.
    """
    with tempfile.TemporaryDirectory() as name:
        photographs = prepare(Path(name, "photographs"))
        numbers = data_speed.compare(photographs)
        numbers |= data_quality.psnr(photographs.shards)
        numbers |= data_host.overhead(photographs)
        small = prepare(Path(name, "small"), width=160, height=120, size=96)
        numbers |= data_host.memory_growth(small)
    return numbers | data_host.first_id() | data_index.run()
