"""python -m finetune.export WORKDIR [--trial=ID] --to=DIR [--adapter]: a trial of a study as a model of its own.

DIR gets all parameters as .safetensors, under transformers' names where it has the model, and by Orbax; the tokenizer;
and a card, README.md. python -m finetune.predict DIR INPUT runs it; --config.model.pretrained=DIR starts from it.
Adapters are merged into the kernels; with --adapter they are written alone, for PEFT.
"""

import sys
from pathlib import Path

from finetune import cli
from finetune.export.directory import base_model, export
from finetune.models.weights import exported
from finetune.storage import records
from finetune.study import user_task


def main() -> None:
    """Exports what the command line names."""
    parser = cli.Parser("finetune.export", __doc__.splitlines()[0].partition(": ")[2])
    parser.add_argument("workdir", metavar="WORKDIR", type=Path, help="of a study")
    parser.add_argument("--trial", default="", metavar="ID", help="default: the best whose weights were kept")
    parser.add_argument("--to", required=True, metavar="DIR", type=Path, help="a new directory")
    parser.add_argument("--adapter", action="store_true", help="the adapters alone, in the format of PEFT")
    given = parser.parse_args()
    row, repeats, use = export(given.workdir, given.to, given.trial, given.adapter)
    print(f"trial {row['id']}: {repeats.sentence()}")
    if not given.trial and use and row["id"] not in use:
        print("the setting to use is another one, of which no weights were kept; the command of the study trains it "
              f"once more with --config.checkpoint.trials={use[0]}")  # fmt: skip
    if given.adapter:
        base = base_model(records.read_document(given.workdir / "config.json"))
        print(f"in {given.to}: PeftModel.from_pretrained({base}, {str(given.to)!r}) of peft applies it")
        return
    task = " --config=FILE" if exported.read(given.to)["architecture"]["model"] == user_task.ARCHITECTURE else ""
    print(f"in {given.to}: README.md tells how to use it; python -m finetune.predict {given.to} INPUT{task} runs it")


if __name__ == "__main__":
    sys.exit(cli.run(main))
