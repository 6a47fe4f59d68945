"""Both columns of docs/migration_tfmot.md run as they are written, and reach the same."""

import pathlib
import re

import numpy as np
import pytest

import tfopt
from tfopt._tfmot import tfmot

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "migration_tfmot.md"
BLOCK = re.compile(r"(?:^\*\*(tfmot|tfopt)\*\*\n\n)?^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def zeros(model):
    return [np.mean(weight == 0) for weight in model.get_weights() if weight.ndim > 1]


def distinct(model):
    return [len(np.unique(weight)) for weight in model.get_weights() if weight.ndim > 1]


def test_every_name_of_the_page_exists():
    names = set(re.findall(r"\bcompress\.(\w+)", PAGE.read_text()))
    assert len(names) == 8 and all(hasattr(tfopt.compress, name) for name in names)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")  # what tf_keras and the converter say to code for tfmot
def test_the_code_for_tfmot_and_ours_do_the_same(tmp_path, monkeypatch):
    tfmot()  # leaves tf.keras and the environment as they are
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    spaces = {"tfmot": dict(names), "tfopt": dict(names)}
    for place, (side, code) in enumerate(BLOCK.findall(PAGE.read_text())):
        block = tmp_path / f"block_{place}.py"  # a file, because TensorFlow reads the source of functions
        block.write_text(code)
        for space in [spaces[side]] if side else spaces.values():
            if not side:
                space.update(
                    {k: v for old in spaces.values() for k, v in old.items() if k.startswith("old_")}
                )
            exec(compile(code, block, "exec"), space)
    old, new = spaces["tfmot"], spaces["tfopt"]
    assert zeros(old["old_pruned"]) == zeros(new["pruned"]) == zeros(new["loaded"])
    assert zeros(old["old_some"]) == zeros(new["some"]) == [0.0, 0.5, 0.5]
    assert distinct(old["old_clustered"]) == distinct(new["clustered"]) == [8, 8, 8]
    assert old["old_file"] and new["file"].inspect().float_operations == {}
    rounded = {kernel.shape: kernel.unique_values for kernel in new["four_file"].inspect().kernels}
    assert rounded[(16, 288)] <= 15
    assert [layer.name for layer in old["old_partly"].layers if "dense" in layer.name] == ["quant_dense"]
    kinds = {layer.name: type(layer).__module__.startswith("keras") for layer in new["partly"].layers}
    assert kinds["conv"] and kinds["logits"] and not kinds["dense"]
    same = new["converted"].predict(new["images"], verbose=0)
    np.testing.assert_allclose(old["old_pruned"].predict(new["images"], verbose=0), same, atol=1e-5)
