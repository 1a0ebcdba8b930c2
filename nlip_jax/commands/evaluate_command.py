"""`evaluate`: measure checkpoints of a run or an imported model, or compare two evaluations."""


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code: 3 where --compare finds the second worse."""
    if any(argument.partition("=")[0] in ("-compare", "--compare") for argument in argv):
        from nlip_jax.commands.evaluation.compare import compare_folders  # starts without JAX

        return compare_folders(argv)
    from nlip_jax.commands.evaluation.evaluate import evaluate

    return evaluate(argv)
