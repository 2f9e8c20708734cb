"""python -m finetune.report WORKDIR [WORKDIR ...]: writes the report of a study again, or compares several studies.

python -m finetune.report --trials=FILE --metric=NAME [--minimize | --maximize]: reports on a table from elsewhere.
"""

import sys
from pathlib import Path

from absl import flags

from finetune.errors import UserError
from finetune.report import table_flags


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string(
        "trials",
        None,
        "a table, one row a trial: .csv, .tsv, .json, .jsonl, or sqlite:///FILE#STUDY",
        flag_values=values,
    )
    table_flags.define(values)
    flags.DEFINE_float(
        "worth", None, "the smallest difference of the metric that matters in practice", 0.0, flag_values=values
    )
    flags.DEFINE_string("to", None, "the directory to write to, instead of the study's own", flag_values=values)
    return values


def _parse(arguments: list[str]) -> tuple[flags.FlagValues, list[Path]]:
    """Returns the flags and the work directories; raises UserError for whatever is wrong with them."""
    try:
        values = _define_flags()
        directories = [Path(each) for each in values(["finetune.report", *arguments])[1:]]
    except flags.Error as error:
        raise UserError(str(error)) from None
    if bool(directories) == bool(values.trials):
        raise UserError(f"{len(directories)} work directories and --trials={values.trials}, allowed: one of both")
    if values.trials and not values.metric:
        raise UserError("--metric is missing, allowed: a column of the table, such as --metric=accuracy")
    if given := [f"--{name}" for name in table_flags.given(values) if directories]:
        raise UserError(f"{' and '.join(given)} given for a study, allowed: with --trials only")
    table_flags.check(values)
    for directory in directories:
        if not directory.is_dir():
            raise UserError(f"work directory is {str(directory)!r}, which does not exist, allowed: that of a study")
    return values, directories


def _beside(table: str) -> Path:
    """Returns where the report of a table is written if nothing is said: `NAME_report` beside the file."""
    path = Path(table.removeprefix("sqlite:///").partition("#")[0])
    return path.with_name(f"{path.stem}_report")


def _run(arguments: list[str]) -> None:
    values, directories = _parse(arguments)
    from finetune.analysis.answer import analyse  # after the arguments are known to be right: it takes a second
    from finetune.analysis.table.trials import read_study
    from finetune.report import comparison, comparison_page, document, interpretation, terminal

    if values.trials:
        answers = [analyse(table_flags.read(values.trials, values), values.worth)]
    else:
        answers = [analyse(read_study(directory), values.worth) for directory in directories]
    to = Path(values.to) if values.to else _beside(values.trials) if values.trials else directories[0]
    if len(answers) > 1:
        compared = comparison.compare(answers)
        print("\n".join([*compared.sentences, f"report: {comparison_page.write(compared, to)}"]))
    else:
        path = document.write(answers[0], to)
        read = interpretation.lines(answers[0].trials) if values.trials else []
        print("\n".join([*read, *terminal.lines(answers[0], path)]))


def main() -> int:
    """Runs the command line and returns its exit status."""
    return table_flags.main(f"{__doc__}", _define_flags, _run)


if __name__ == "__main__":
    sys.exit(main())
