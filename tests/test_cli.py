"""The `tfopt` command: it starts at once, its help teaches, a mistake is answered by one sentence."""

import dataclasses
import json
import subprocess
import sys

import pytest

import tfopt
from tfopt.cli import main
from tfopt.recipes import CompressConfig
from tfopt.recipes.options import GROUPS

HEAVY = ("tensorflow", "keras", "numpy", "PIL", "rich", "asyncio")
WORDS = [
    ["--help"],
    ["--version"],
    ["nothing"],
    ["finetune", "--data", "photos", "--epochs", "many"],
    ["finetune", "--data", "photos", "--model", "renset"],
    *([name, "--help"] for name in ("finetune", "compress", "predict", "evaluate", "lr-find", "search")),
]


@pytest.mark.process
def test_help_and_wrong_flags_import_nothing_heavy_and_answer_at_once(tmp_path):
    code = (
        "import contextlib, io, json, sys, time\n"
        "from tfopt.cli import main\n"
        "quiet = io.StringIO()\n"
        "with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):\n"
        "    try: main(json.loads(sys.argv[1]))\n"
        "    except SystemExit: pass\n"
        "print(json.dumps([sorted({name.split('.')[0] for name in sys.modules}), time.process_time()]))"
    )
    for words in WORDS:
        command = [sys.executable, "-c", code, json.dumps(words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
        modules, seconds = json.loads(done.stdout)
        assert not set(HEAVY) & set(modules), words
        assert seconds < 1.0, words  # 0.15 on a quiet machine


def printed(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    captured = capsys.readouterr()
    return ended.value.code, captured.out + captured.err


def test_every_option_is_a_flag_in_a_group(capsys):
    for command, config in (("finetune", tfopt.FinetuneConfig), ("compress", CompressConfig)):
        code, text = printed([command, "--help"], capsys)
        assert code == 0
        for field in dataclasses.fields(config):
            assert "--" + field.name.replace("_", "-") in text
            assert field.metadata["group"] in GROUPS and field.name + ": " in config.__doc__
    assert "{options}" not in tfopt.FinetuneConfig.__doc__


def test_version_is_told(capsys):
    assert printed(["--version"], capsys) == (0, f"tfopt {tfopt.__version__}\n")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--epochs", "-1"], "must be an integer >= 0 or auto, not '-1'"),
        (["--sparsity", "1"], "must be a number in [0, 1) or none, not '1'"),
        (["--optimizer", "adam"], "must be one of adamw, lion, sgd, not 'adam'"),
        (["--batch-growth", "3"], "must be one of 1, 2, 4, 8"),
        (["--augment", "wild"], "must be one of auto, light, standard, strong, none, not 'wild'"),
    ],
)
def test_a_wrong_value_is_answered_with_what_is_possible(flags, told, capsys):
    code, text = printed(["finetune", "--data", "photos", *flags], capsys)
    assert code == 2 and f"argument {flags[0]}: {told}" in text
