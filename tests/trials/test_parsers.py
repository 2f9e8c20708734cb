"""Whatever is typed for an axis or a setting is understood, or refused in one line: 2,000 examples of each."""

import contextlib

import hypothesis
import pytest
from hypothesis import strategies as some

from finetune import config as settings
from finetune.errors import UserError
from finetune.study import config_file as config_file_of
from finetune.study import flags
from finetune.trials import grid, hparams

EXAMPLES = hypothesis.settings(
    max_examples=2000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
AXES = some.sampled_from([*hparams.NAMES, *grid.STATIC])
SETTINGS = some.sampled_from([name for name, _ in settings.fields(settings.Config())])
NUMBERS = some.one_of(some.integers(), some.floats(), some.sampled_from(["1e999", "-0", "1_000", "٣", "0x1", "½", ""]))
# Long axes are refused by their number, and one that is just not refused would take most of the time.
COUNTS = some.one_of(some.integers(-3, 50), some.integers(min_value=100_001), some.text("0123456789e.-", max_size=3))
SPACED = some.builds("{}:{}:{}:{}".format, some.sampled_from(["log", "lin", " log", "LIN"]), NUMBERS, NUMBERS, COUNTS)
LISTED = some.lists(some.one_of(NUMBERS, some.text(max_size=6)), max_size=6).map(
    lambda items: ",".join(map(str, items))
)
CODE = some.sampled_from(
    ["__import__('os').abort()", "(1,", "{}", "None", "True", "[1, 2]", "head+", "last:0", "a\x00b"]
)
VALUES = some.one_of(SPACED, LISTED, CODE, some.text(max_size=20), NUMBERS.map(str))


@EXAMPLES
@hypothesis.given(
    some.lists(some.one_of(some.text(max_size=20), some.builds("{}={}".format, AXES, VALUES)), max_size=4)
)
def test_axes(texts):
    with contextlib.suppress(UserError):
        for name, values in grid.parse_axes(texts, None).items():
            assert name.partition("@")[0] in (*hparams.NAMES, *grid.STATIC)
            assert values
            for value in values if name in hparams.NAMES else ():
                assert value in hparams.RANGES[name]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "config.py"
    file.write_text("from finetune.config import Config\ndef get_config(arg=''):\n    return Config()\n")
    return file


@EXAMPLES
@hypothesis.given(
    some.lists(
        some.one_of(
            some.builds("--config.{}={}".format, SETTINGS, VALUES),
            some.builds("--config.{}".format, some.one_of(SETTINGS, some.text(max_size=20))),
            some.builds("{}={}".format, some.sampled_from(["--seeds", "--plan_only", "--processes", "--gri"]), VALUES),
            some.text(max_size=10).filter(lambda text: "flagfile" not in text),
        ),
        max_size=3,
    )
)
def test_overrides(config_file, arguments):
    defaults = dict(settings.fields(settings.Config()))
    with contextlib.suppress(UserError):
        _, named, overrides = flags.parse([f"--config={config_file}", "--workdir=study", *arguments])
        defined = config_file_of.read(*config_file_of.find(named))
        for name, value in settings.fields(flags.overridden(defined.config, overrides)):
            assert type(value) is type(defaults[name])
