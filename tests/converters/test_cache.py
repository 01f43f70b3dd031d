"""The cache key covers what decides the bytes; damaged entries are lowered again."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.conv_branches import ConvBranches
from torch import nn

from paraedge_converters.backends import converter_for
from paraedge_converters.cache import CachedPart, PartCache, fingerprint, graph_fingerprint, tool_versions
from paraedge_converters.split import split_model
from paraedge_runtime.cache_folder import cache_folder
from paraedge_runtime.errors import ConversionError

LOWERED = CachedPart(b"program\nwith\nlines", {"CONV": 2}, macs=7)


def _key(cache, model=None, engine="onnxruntime", part=0, **changes):
    parts = split_model(ConvBranches() if model is None else model, (0, 1))
    settings = {"recipe": "int8-static", "calibration": torch.zeros(2, 3), "allow_undelegated": False, **changes}
    return cache.key(parts[part].module, parts[part].example, engine, converter_for(engine), **settings)


def test_the_same_part_has_the_same_key(tmp_path):
    assert _key(PartCache(tmp_path)) == _key(PartCache(tmp_path))


def _other_weights():
    model = ConvBranches()
    with torch.no_grad():
        model.stem[0].weight[0, 0, 0, 0] += 1e-6
    return model


def _other_attribute():
    model = ConvBranches()
    model.stem[2].inplace = True  # same weights, another structure
    return model


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "litert"},
        {"allow_undelegated": True},
        {"recipe": "int8-dynamic"},
        {"calibration": torch.ones(2, 3)},
        {"calibration": torch.zeros(1, 3)},
        {"part": 1},
        {"model": _other_weights()},
        {"model": _other_attribute()},
        {"model": ConvBranches(image_size=32)},
    ],
    ids=[
        "engine",
        "flag",
        "recipe",
        "calibration",
        "fewer for calibration",
        "part",
        "weights",
        "attribute",
        "input shape",
    ],
)
def test_whatever_decides_the_bytes_changes_the_key(tmp_path, change):
    cache = PartCache(tmp_path)
    assert _key(cache, **change) != _key(cache)


def test_every_converter_has_keys_of_its_own(tmp_path):
    """A part for a microcontroller is a .tflite too, and lowered in another way."""
    cache, part = PartCache(tmp_path), split_model(ConvBranches(), (0,))[0]
    settings = {"recipe": "fp32", "calibration": torch.zeros(2, 3), "allow_undelegated": False}
    names = ("litert", "tflite-micro", "onnxruntime")
    keys = {cache.key(part.module, part.example, "litert", converter_for(name), **settings) for name in names}
    assert len(keys) == len(names)


@pytest.mark.parametrize("engine", ["executorch", "litert", "onnxruntime", "tflite-micro"])
@pytest.mark.parametrize("changed", ["own", "_whole.py", "_xnnpack_forms.py", "litert.py"])
def test_the_lowering_code_is_in_the_key(tmp_path, monkeypatch, engine, changed):
    cache = PartCache(tmp_path / "cache")
    converter = converter_for(engine)
    copied = tmp_path / "backends"
    shutil.copytree(Path(converter.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    own = copied / Path(converter.__file__).name
    monkeypatch.setattr(converter, "__file__", str(own))
    before = _key(cache, engine=engine)
    with (own if changed == "own" else copied / changed).open("a") as file:
        file.write("# another version\n")
    assert _key(cache, engine=engine) != before


def test_tool_versions_are_in_the_key(tmp_path, monkeypatch):
    cache = PartCache(tmp_path)
    before = _key(cache)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0.1")
    assert _key(cache) != before


def test_a_missing_tool_is_named(monkeypatch):
    converter = converter_for("litert")
    monkeypatch.setattr(converter, "TOOLS", ("torch", "no-such-tool"))
    with pytest.raises(ConversionError, match=r"needs the package no-such-tool; pip install 'paraedge\[export\]'"):
        tool_versions(converter)


def test_put_and_get(tmp_path):
    cache = PartCache(tmp_path)
    assert cache.get("a" * 64) is None
    cache.put("a" * 64, LOWERED)
    assert cache.get("a" * 64) == LOWERED
    assert [path.name for path in cache.folder.iterdir()] == ["a" * 64]


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:-1],
        lambda raw: raw[:-1] + b"X",
        lambda raw: b"{}\n" + raw,
        lambda raw: b"\xff",
    ],
    ids=["empty", "truncated", "flipped", "other header", "garbage"],
)
def test_a_damaged_entry_is_no_entry(tmp_path, damage):
    cache = PartCache(tmp_path)
    cache.put("key", LOWERED)
    (cache.folder / "key").write_bytes(damage((cache.folder / "key").read_bytes()))
    assert cache.get("key") is None


def test_a_cache_that_cannot_be_used_holds_nothing_and_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    cache = PartCache(tmp_path / "file")
    cache.put("key", LOWERED)
    assert cache.get("key") is None
    cache.discard("key")
    assert cache.problem == f"{tmp_path / 'file' / 'parts'}: Not a directory; set PARAEDGE_CACHE"


def test_a_cache_that_others_can_write_holds_nothing_and_says_why(tmp_path):
    kept = PartCache(tmp_path)
    kept.put("key", LOWERED)
    assert kept.get("key") == LOWERED
    for place, mode in ((tmp_path / "parts", 0o775), (tmp_path / "parts", 0o757), (tmp_path, 0o777)):
        before = place.stat().st_mode & 0o777
        place.chmod(mode)
        cache = PartCache(tmp_path)
        cache.put("key", LOWERED)
        assert cache.get("key") is None
        assert cache.problem.startswith(
            f"{place} can be written by other users, so paraedge does not trust its contents; "
        )
        place.chmod(before)
    assert PartCache(tmp_path).get("key") == LOWERED


def test_the_cache_of_another_user_holds_nothing_and_says_why(tmp_path, monkeypatch):
    PartCache(tmp_path).put("key", LOWERED)
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    monkeypatch.setattr("paraedge_runtime.cache_folder._TRUSTED_UIDS", ())
    cache = PartCache(tmp_path)
    assert cache.get("key") is None
    assert cache.problem.startswith(f"{tmp_path} belongs to another user, so paraedge does not trust its contents; ")


def test_what_is_made_is_the_user_s_own(tmp_path):
    PartCache(tmp_path / "new" / "cache")
    assert [(tmp_path / "new" / name).stat().st_mode & 0o777 for name in ("cache", "cache/parts")] == [0o700, 0o700]


def test_a_user_without_a_home_folder_has_no_cache(monkeypatch):
    monkeypatch.delenv("PARAEDGE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", no_home)
    cache = PartCache()
    cache.put("key", LOWERED)
    assert cache.get("key") is None
    assert cache.problem == "this user has no home folder for the cache; set PARAEDGE_CACHE"


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("PARAEDGE_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("PARAEDGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "paraedge"


def test_fingerprint_sees_names_types_shapes_and_values():
    base = {"a": torch.zeros(2, 3)}
    others = [
        {"b": torch.zeros(2, 3)},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(2, 3, dtype=torch.float16)},
        {"a": torch.ones(2, 3)},
    ]
    prints = {fingerprint(state) for state in [base, *others]}
    assert len(prints) == 5
    assert fingerprint({"a": torch.zeros(2, 3)}) in prints


@pytest.mark.parametrize(
    "put",
    [
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.write_bytes(b'{"operators":' + b'{"a":' * 100_000 + b"\nprogram"),
        lambda path: path.write_bytes(b'{"sha256":"\xff"}\nprogram'),
    ],
    ids=["pipe", "no end", "deep", "not UTF-8"],
)
def test_what_is_no_entry_is_none(tmp_path, put):
    cache = PartCache(tmp_path)
    put(cache.folder / "key")
    assert cache.get("key") is None


class _Twice(nn.Module):
    """Doubles its input in a way that has a number of its own, or a tensor that no state dict lists."""

    def __init__(self, how, number):
        super().__init__()
        self.how, self.number = how, number
        self.array = np.full(3, number, dtype=np.float32)
        self.hidden = [torch.full((3,), number)]
        self.scripted = torch.jit.script(_Scale(number))
        self.last = None

    def forward(self, x):
        self.last = (
            x
            * {
                "number": lambda: self.number,
                "array": lambda: torch.from_numpy(self.array),
                "numpy's product": lambda: torch.from_numpy(np.ones(3, dtype=np.float32) * self.array),
                "list": lambda: self.hidden[0],
                "global": lambda: _NUMBERS[self.number],
                "scripted": lambda: self.scripted(x),
                "in place": lambda: torch.ones(3).mul_(self.number),
                "function of its own": lambda: _Product.apply(x, self.hidden[0]),
                "torch.ops": lambda: torch.ops.aten.mul(x, self.hidden[0]),
                "choice": lambda: x.sum() if (x.sum() * self.hidden[0][0]).item() > 0 else x,
            }[self.how]()
        )
        return self.last


class _Scale(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float(number)))

    def forward(self, x):
        return x * self.weight


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(context, x, y):
        return x * y


_NUMBERS = {2.0: torch.tensor(2.0), -3.0: torch.tensor(-3.0)}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize(
    "how",
    [
        *("number", "array", "numpy's product", "list", "global", "scripted", "in place", "function of its own"),
        *("torch.ops", "choice"),
    ],
)
def test_the_key_covers_whatever_a_forward_reads(how):
    two, again, three = (graph_fingerprint(_Twice(how, number), torch.rand(1, 3)) for number in (2.0, 2.0, -3.0))
    assert two == again != three
    assert two is not None


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_the_key_leaves_the_module_as_it_is():
    module = _Twice("number", 2.0)
    assert graph_fingerprint(module, torch.rand(1, 3)) is not None
    assert module.last is None
    assert graph_fingerprint(module, torch.rand(1, 4)) != graph_fingerprint(module, torch.rand(1, 3))


def test_a_module_that_does_not_run_has_no_key():
    assert graph_fingerprint(nn.Linear(2, 2), torch.rand(1, 3)) is None
