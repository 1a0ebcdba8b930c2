"""`audit`: what is wrong with the pairs of a data set, within a time that is given."""

from nlip_jax.commands.auditing.after import PAGE
from nlip_jax.commands.auditing.audit import audit
from nlip_jax.commands.auditing.request import read_request
from nlip_jax.commands.json_file import write_json_file
from nlip_jax.report.table import format_results


def main(argv: list[str]) -> int:
    """Runs the command, in one process; returns the exit code."""
    request = read_request(argv)
    results = audit(request)
    print(format_results(results))
    print(f"the page of this audit is {request.workdir / PAGE}")
    if request.json is not None:
        write_json_file(request.json, results)
    return 0
