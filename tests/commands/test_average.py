"""A run in parts, with dropout and a moving average: the same bits after a restart."""

import json

from nlip_jax.train import stop

FIELDS = (
    "--config.method=clip",
    "--config.model.dropout=0.1",
    "--config.accumulation.micro_batches=3",
    "--config.ema.decay=0.9",
    "--config.report.enabled=False",
    "--config.log.tensorboard=False",
)


def read(workdir):
    """(results, fingerprint of the parameters)."""
    events = [json.loads(line) for line in (workdir / "events.jsonl").read_text().splitlines()]
    done = [event for event in events if event["phase"] == "done"]
    return json.loads((workdir / "results.json").read_text()), done[-1]["params"]


def test_the_average_is_evaluated_and_survives_a_restart(command, tiny, tmp_path, monkeypatch):
    argv = ("train", *tiny, *FIELDS)
    assert command(*argv, f"--workdir={tmp_path / 'whole'}")[0] == 0
    average, params = read(tmp_path / "whole")

    with monkeypatch.context() as patched:
        patched.setattr(stop, "requested", lambda step=None: step == 6)
        assert command(*argv, f"--workdir={tmp_path / 'parts'}")[0] == 75
    assert command(*argv, f"--workdir={tmp_path / 'parts'}")[0] == 0
    again, same_params = read(tmp_path / "parts")
    assert same_params == params

    def scores(results):
        return {name: value for name, value in results.items() if not name.startswith("time/")}

    assert scores(again) == scores(average)

    # Asked for the parameters themselves, a finished run is evaluated anew, and not trained.
    code, _, _ = command(*argv, f"--workdir={tmp_path / 'whole'}", "--config.ema.evaluate=False")
    assert code == 0
    plain, still = read(tmp_path / "whole")
    assert still == params
    assert scores(plain) != scores(average)
