"""The command line as its users meet it: what works, what is refused and how, in text and in JSON."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from support.bundles import EMBEDDING, MOTION, fake_bundle, replace_file

from paraedge.cli.main import COMMANDS
from paraedge.packaged import PACKAGED_MODELS
from paraedge.training.recipes import RECIPES
from paraedge_runtime import Bundle

PARAEDGE = [sys.executable, "-c", "import sys; sys.argv[0] = 'paraedge'; from paraedge.cli.main import main; main()"]


def run(*arguments, cwd=None, **environment):
    return subprocess.run(
        [*PARAEDGE, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        timeout=280,
    )


def succeed(*arguments, **options):
    done = run(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fail(*arguments, code=2, **options):
    """The one line that the command prints, with the expected exit code and no traceback."""
    done = run(*arguments, **options)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert lines[-1].startswith("Error: ")
    assert sum(line.startswith("Error: ") for line in lines) == 1
    return lines[-1]


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def bundle(bundles):
    return bundles["litert"].path


@pytest.fixture(scope="module")
def images(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(6):
        Image.fromarray(checkpoint.samples.images[number, :, :, 0]).save(folder / f"{number}.png")
    Image.fromarray(checkpoint.samples.images[0, :, :, 0]).convert("RGB").resize((90, 60)).save(folder / "large.jpg")
    return folder


def test_help_lists_every_command_with_its_own_first_line():
    text = succeed("--help")
    for name, line in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", text, re.MULTILINE)
        own = succeed(name, "--help")
        assert line in " ".join(own.split())
        assert f"paraedge {name}" in own, "an example"
        assert "--json" in own


def test_version():
    assert re.fullmatch(r"paraedge, version \d+\.\d+\.\d+\n", succeed("--version"))


def test_the_anchor_command_with_no_other_argument(tmp_path):
    text = succeed("export", "--target", "android", "--branches", "2", cwd=tmp_path)
    assert "fashion-mnist-android-2.paraedge" in text
    assert re.search(r"branch_01 .* dB.* 100 %.* \d\d\.\d\d %", text)
    bundle = Bundle.open(tmp_path / "fashion-mnist-android-2.paraedge")
    assert bundle.manifest.engine == "executorch"
    assert bundle.manifest.branch_indexes == (0, 1)
    parts = bundle.card.parts
    assert set(parts["stem"].operators) == {"XnnpackBackend"}
    assert set(parts["branch_00"].operators) == {"XnnpackBackend", "aten::native_layer_norm.out"}


@pytest.mark.parametrize(
    ("target", "choice", "out"),
    [
        ("raspberry-pi", "0,3,5", "fashion-mnist-raspberry-pi-0-3-5.paraedge"),
        ("linux", "3,", "fashion-mnist-linux-only-3.paraedge"),
    ],
)
def test_export_json_and_names(target, choice, out, tmp_path):
    document = json.loads(succeed("export", "--target", target, "--branches", choice, "--json", cwd=tmp_path))
    assert document["path"] == out
    assert document["manifest"]["target"] == target
    bundle = Bundle.open(tmp_path / out)
    assert (
        document["size_bytes"]
        == bundle.size_bytes
        == sum(path.stat().st_size for path in (tmp_path / out).rglob("*") if path.is_file())
    )
    assert succeed("export", "--target", target, "--branches", choice, cwd=tmp_path)  # again: replaced


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--branches", "3"],
            r"confidence 0\.\d+ loses at most 0\.5 points \(with 95 % probability, 5000 images\); on 4000 others",
        ),
        (["--branches", "3", "--max-accuracy-drop", "0.02"], r"confidence 0\.\d+ loses at most 2 points"),
        (["--branches", "3", "--max-accuracy-drop", "0.0001"], "never; on 5000 images no threshold could be shown"),
        (["--branches", "1"], "nothing to stop with one branch"),
    ],
)
def test_export_says_what_early_stop_may_cost(bundle, options, words, tmp_path):
    text = succeed("export", "--target", "raspberry-pi", "--out", "b.paraedge", *options, cwd=tmp_path)
    assert re.search(f"early stop: {words}", text)
    assert re.search(f"early stop: {words}", succeed("inspect", tmp_path / "b.paraedge"))
    rules = Bundle.open(tmp_path / "b.paraedge").manifest.stop_rules
    assert len(rules) == int(options[1])
    assert (rules[0].threshold is None) == ("confidence" not in words)


@pytest.mark.parametrize("asked", ["int8-dynamic", "small"])
def test_a_recipe_is_in_the_name_and_the_manifest(asked, bundle, tmp_path):
    text = succeed("export", "--target", "raspberry-pi", "--branches", "2", "--quantize", asked, cwd=tmp_path)
    assert "accuracy unknown" in text
    assert "early stop: not calibrated for int8-dynamic; export with --data-dir" in text
    small = tmp_path / "fashion-mnist-raspberry-pi-2-int8-dynamic.paraedge"
    document = json.loads(succeed("inspect", small, "--json"))
    assert document["manifest"]["quantization"] == "int8-dynamic"
    assert "verified" in succeed("verify", small)
    assert succeed("run", small)
    part, whole = (json.loads(succeed("inspect", path, "--json"))["manifest"] for path in (small, bundle))
    for before, after in zip(whole["branches"][:2], part["branches"], strict=True):
        assert after["size_bytes"] < 0.45 * before["size_bytes"]


def test_auto_takes_the_smallest_that_is_accurate_enough_and_shows_what_it_tried(trained, tmp_path):
    options = ["--target", "linux", "--model", trained.folder, "--quantize", "auto", "--out", "auto.paraedge"]
    document = json.loads(succeed("export", *options, "--json", cwd=tmp_path))
    *smaller, chosen = [trial for trial in document["tried"] if trial["accuracy_drop"] is not None]
    assert chosen["quantization"] == document["manifest"]["quantization"]
    assert chosen["accuracy_drop"] <= 0.005
    assert all(trial["accuracy_drop"] > 0.005 and trial["size_bytes"] <= chosen["size_bytes"] for trial in smaller)
    assert "digits test split, " in document["card"]["accuracy"]["dataset"]
    assert "verified" in succeed("verify", tmp_path / "auto.paraedge")


def test_fused_adds_one_ordinary_model(tmp_path):
    succeed("export", "--target", "linux", "--branches", "2", "--fused", "--out", "f.paraedge", cwd=tmp_path)
    import onnxruntime

    bundle = Bundle.open(tmp_path / "f.paraedge")
    session = onnxruntime.InferenceSession(bundle.path / "fused.onnx", providers=["CPUExecutionProvider"])
    golden = bundle.golden()
    from paraedge_runtime.inputs import normalise

    (logits,) = session.run(None, {"x": normalise(golden.inputs[:1], bundle.manifest.input)})
    np.testing.assert_allclose(logits[0], golden.branch_outputs[0].sum(axis=0), atol=1e-4)


def test_run_on_images_and_folders(bundle, images, checkpoint):
    results = json_lines(succeed("run", bundle, images, "--threads", 2, "--json"))
    assert [Path(result["input"]).name for result in results] == [f"{n}.png" for n in range(6)] + ["large.jpg"]
    labels = checkpoint.config.labels
    right = sum(
        result["label"] == labels[label] for result, label in zip(results, checkpoint.samples.labels[:6], strict=False)
    )
    assert right >= 4
    assert results[0]["branches_used"] == list(range(8))
    assert {part["thread"] for part in results[0]["timeline"]} <= {0, 1}
    text = succeed("run", bundle, images / "0.png", "--branches", "0,3")
    assert "0.png" in text
    assert "ai-edge-litert" in text


def test_run_without_images_uses_the_golden_ones(bundle):
    text = succeed("run", bundle, "--branches", 3)
    assert re.search(r"32 image\(s\), \d\d of 32 right, median \d+\.\d\d ms, ai-edge-litert .*, 2 thread", text)


def test_run_without_a_bundle_uses_the_packaged_model(bundles, images):
    assert bundles["litert"]  # its parts are in the cache
    (result,) = json_lines(succeed("run", "--json", images / "0.png"))
    assert result["engine"].startswith("ai-edge-litert")


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: None], ids=["cut", "gone"])
def test_a_damaged_bundle_of_the_packaged_model_is_made_again(bundles, images, damage):
    assert bundles["litert"]  # its parts are in the cache
    succeed("run", "--engine", "litert", images / "0.png")
    (kept,) = Path(os.environ["PARAEDGE_CACHE"], "bundles").glob("*-litert-*.paraedge")
    part = kept / "branch_03.tflite"
    before = part.read_bytes()
    if (left := damage(before)) is None:
        part.unlink()
    else:
        part.write_bytes(left)
    (result,) = json_lines(succeed("run", "--engine", "litert", "--json", images / "0.png"))
    assert result["engine"].startswith("ai-edge-litert")
    assert part.read_bytes() == before
    assert Bundle.open(kept)


def test_inspect_verify_pack_subset(bundle, tmp_path):
    assert "branch_07" in succeed("inspect", bundle)
    assert json.loads(succeed("inspect", bundle, "--json"))["manifest"]["total_branches"] == 8
    assert "verified" in succeed("verify", bundle)
    assert json.loads(succeed("verify", bundle, "--json"))["passed"] is True

    succeed("subset", bundle, "--branches", "0,3,5", "--out", tmp_path / "small.paraedge")
    assert "unknown" in succeed("inspect", tmp_path / "small.paraedge")
    assert "not calibrated for this choice of branches" in succeed("inspect", tmp_path / "small.paraedge")
    assert "verified" in succeed("verify", tmp_path / "small.paraedge")
    succeed("subset", bundle, "--branches", 2, "--out", tmp_path / "two.paraedge", "--json")
    assert Bundle.open(tmp_path / "two.paraedge").card.accuracy is not None

    succeed("pack", tmp_path / "two.paraedge")
    packed = tmp_path / "two.paraedge.zip"
    assert "verified" in succeed("verify", packed)
    assert succeed("inspect", packed)
    assert succeed("run", packed)
    succeed("subset", packed, "--branches", 1, "--out", tmp_path / "one.paraedge")


def test_inspect_and_verify_know_tensors_and_vectors(tmp_path):
    path = fake_bundle(tmp_path / "motion.paraedge", input=MOTION, output=EMBEDDING, version=7).path
    text = succeed("inspect", path)
    assert "version 7, target linux" in text
    assert "tensor motion (channel 6, time 16) → 7 × embedding" in text
    assert re.search(r"branch_02 .* 130 dB, 1\.0e-06", text)
    assert "SNR, relative error" in text
    assert "accuracy unknown" not in text
    document = json.loads(succeed("inspect", path, "--json"))
    assert document["manifest"]["output"] == {"kind": "vector", "name": "embedding", "size": 7}
    assert document["card"]["parity"]["prefixes"][0]["relative_error"] == 1e-6


def test_verify_fails_with_1_when_the_answers_are_wrong(bundle, tmp_path):
    import io
    import shutil

    copy = tmp_path / "changed.paraedge"
    shutil.copytree(bundle, copy)
    outputs = Bundle.open(bundle).golden().branch_outputs.copy()
    outputs[:, 2] += 0.5
    buffer = io.BytesIO()
    np.save(buffer, outputs)
    replace_file(copy, "golden/branch_outputs.npy", buffer.getvalue())
    done = run("verify", copy)
    assert done.returncode == 1
    assert "branch 2: SNR" in done.stdout
    assert "NOT verified" in done.stdout
    document = json.loads(run("verify", copy, "--json").stdout)
    assert document["passed"] is False


def test_targets_and_doctor():
    text = succeed("targets")
    for target in ("android", "ios", "raspberry-pi", "linux", "microcontroller", "web"):
        assert target in text
    assert json.loads(succeed("targets", "--json"))["android"]["engine"] == "executorch"
    assert "(native core)" in " ".join(succeed("doctor").split())
    document = json.loads(succeed("doctor", "--json"))
    assert all(engine["works"] for engine in document["engines"].values())
    assert all(engine["parallel"] for engine in document["engines"].values())


def test_doctor_says_that_branches_run_one_after_another_without_the_native_core():
    script = "import sys; sys.modules['paraedge_runtime._native'] = None; " + PARAEDGE[2]
    for options in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, "-c", script, "doctor", *options], capture_output=True, text=True, timeout=250, check=True
        )
        text = " ".join(done.stdout.split())
        assert "paraedge's native core was not built; install a wheel of paraedge for this machine" in text
        if options:
            document = json.loads(done.stdout)
            assert not document["native_core"]["works"]
            assert not any(state["parallel"] for state in document["engines"].values())
        else:
            assert "branches run one after another: " in text


def test_evaluate_from_the_kept_logits_and_its_plot(tmp_path, checkpoint):
    document = json.loads(succeed("evaluate", "--json", "--plot", "curve.png", cwd=tmp_path))
    assert document["prefix_accuracy"] == list(checkpoint.evaluation.prefix_accuracy())
    assert document["num_samples"] == 10_000
    with Image.open(tmp_path / "curve.png") as image:
        assert image.format == "PNG"
        assert image.size[0] > 500
    assert not (tmp_path / "fashion-mnist-prefix-accuracy.png").exists()
    assert "kept with the checkpoint" in succeed("evaluate", cwd=tmp_path)


def test_models_lists_what_ships_with_its_accuracy():
    documents = json.loads(succeed("models", "--json"))
    assert [document["name"] for document in documents if document["default"]] == ["fashion-mnist"]
    assert {document["name"] for document in documents} == set(PACKAGED_MODELS)
    text = succeed("models")
    for document in documents:
        assert len(document["prefix_accuracy"]) == document["num_branches"]
        (line,) = [line for line in text.splitlines() if line.split(" ")[0] == document["name"]]
        assert f"{100 * document['prefix_accuracy'][-1]:.2f}" in line


def test_train_by_a_recipe_that_options_change(tmp_path):
    recipe = msgspec.to_builtins(RECIPES["fashion-mnist"])
    recipe["dataset"] = "digits"
    recipe["network"].update(embed_dim=16, num_heads=2, num_branches=3, stem_stride=4, stem_width=8, branch_width=8)
    recipe["training"].update(epochs=50, ema_decay=0.5)
    (tmp_path / "mine.json").write_text(json.dumps(recipe))
    succeed(
        "train", "--recipe", "mine.json", "--epochs", 2, "--seed", 7, "--set", "num_branches=2", "--out", "small",
        "--holdout", 100, "--log", "log.jsonl", "--workers", 1, cwd=tmp_path,
    )  # fmt: skip
    record = json.loads((tmp_path / "small" / "training.json").read_text())
    model = json.loads((tmp_path / "small" / "config.json").read_text())["model"]
    assert {key: model[key] for key in ("num_branches", "embed_dim", "stem_width")} == {
        "num_branches": 2, "embed_dim": 16, "stem_width": 8,
    }  # fmt: skip
    changed = {**recipe["training"], "epochs": 2, "seed": 7, "warmup_epochs": 0.2}
    assert record["settings"] == changed
    assert record["num_test_samples"] == 100
    epochs = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in epochs] == [0, 1]
    assert all(len(line["prefix_accuracy"]) == 2 for line in epochs)


def test_a_stranger_s_images_go_the_whole_way(tmp_path):
    """Class folders of colour images in, bundle for every engine out, no code changed."""
    rng = np.random.default_rng(1)
    for name, colour in (("red", (200, 40, 40)), ("green", (40, 200, 40)), ("blue", (40, 40, 200))):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(30):
            pixels = np.clip(rng.normal(colour, 40, (40, 50, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    document = json.loads(
        succeed(
            "train", "--dataset", "folder", "--data-dir", "images", "--out", "mine", "--name", "colours",
            "--epochs", 6, "--set", "batch_size=16", "--set", "embed_dim=16", "--set", "num_heads=2",
            "--set", "num_branches=3", "--image-size", 16, "--json", cwd=tmp_path,
        )
    )  # fmt: skip
    assert document["prefix_accuracy"][-1] > 0.9
    for target in ("android", "linux"):
        succeed("export", "--target", target, "--model", "mine", "--branches", 2, cwd=tmp_path)
        bundle = f"colours-{target}-2.paraedge"
        assert "verified" in succeed("verify", bundle, cwd=tmp_path)
        (result,) = json_lines(succeed("run", bundle, "images/green/3.png", "--json", cwd=tmp_path))
        assert result["label"] == "green"
    text = succeed("evaluate", "mine", "--dataset", "folder", "--data-dir", "images", cwd=tmp_path)
    assert "run in torch" in text
    text = succeed(
        "evaluate", "colours-linux-2.paraedge", "--dataset", "folder", "--data-dir", "images",
        cwd=tmp_path,
    )  # fmt: skip
    assert "run in onnxruntime" in text


def test_a_model_is_extended_by_a_new_class_and_only_the_new_parts_travel(tmp_path):
    rng = np.random.default_rng(0)
    colours = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
    for folder, names in (("two", ["red", "green"]), ("three", ["red", "green", "blue"])):
        for name in names:
            (tmp_path / folder / name).mkdir(parents=True)
            for number in range(30):
                pixels = np.clip(rng.normal(colours[name], 40, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / name / f"{number}.png")
    succeed(
        "train", "--dataset", "folder", "--data-dir", "two", "--out", "small", "--epochs", 4,
        "--set", "batch_size=16", "--set", "embed_dim=16", "--set", "num_heads=2", "--set", "num_branches=2",
        "--image-size", 16, cwd=tmp_path,
    )  # fmt: skip
    document = json.loads(
        succeed(
            "extend", "small", "--branches", 1, "--data-dir", "three", "--out", "big", "--epochs", 12,
            "--batch-size", 16, "--json", cwd=tmp_path,
        )
    )  # fmt: skip
    assert document["prefix_accuracy"][1] < 0.7 < 0.85 < document["prefix_accuracy"][2]
    for model in ("small", "big"):
        succeed("export", "--target", "linux", "--model", model, "--out", f"{model}.paraedge", cwd=tmp_path)
    text = succeed("update", "small.paraedge", "big.paraedge", "--out", "new.zip", cwd=tmp_path)
    assert "branch_02.onnx" in text
    assert "stem.onnx" not in text
    succeed("apply", "new.zip", "small.paraedge", "--out", "applied.paraedge", cwd=tmp_path)
    assert "verified" in succeed("verify", "applied.paraedge", cwd=tmp_path)
    (result,) = json_lines(succeed("run", "applied.paraedge", "three/blue/3.png", "--json", cwd=tmp_path))
    assert result["label"] == "blue"


MISTAKES = [
    (["explode"], "unknown command 'explode'; choose one of models, train"),
    (["export"], "Missing option '--target'"),
    (["export", "--target", "toaster"], "unknown target 'toaster'; choose one of android, ios, linux, micro"),
    (["export", "--target", "linux", "--engine", "tvm"], "unknown engine 'tvm'; choose one of executorch, litert"),
    (["export", "--target", "linux", "--branches", "two"], "'two' is not a choice of branches"),
    (["export", "--target", "linux", "--branches", "9"], "9 branches requested, 8 available"),
    (["export", "--target", "linux", "--branches", "0"], "0 branches requested"),
    (["export", "--target", "linux", "--branches", "-1"], "-1 branches requested"),
    (["export", "--target", "linux", "--branches", "0,8"], "there is no branch 8"),
    (["export", "--target", "linux", "--branches", "3,0"], "ascending order"),
    (["export", "--target", "linux", "--branches", "1,1"], "give one or more unique indices"),
    (["export", "--target", "linux", "--model", "nowhere"], "nowhere is neither a packaged model"),
    (["export", "--target", "linux", "--max-accuracy-drop", "0.5"], "0.5 is not in the range 0<x<=0.1"),
    (["export", "--target", "linux", "--max-accuracy-drop", "0"], "0.0 is not in the range 0<x<=0.1"),
    (
        ["export", "--target", "linux", "--max-accuracy-drop", "nan"],
        "max_accuracy_drop must be above 0 and at most 0.1 (0.005 is half a point), got nan",
    ),
    (
        ["export", "--target", "linux", "--quantize", "int7"],
        "unknown quantization recipe 'int7'; choose one of fp32, fp16, int",
    ),
    (
        ["export", "--target", "ios", "--quantize", "int4-weight"],
        "executorch does not support int4-weight: XNNPACK has no",
    ),
    (["export", "--target", "linux", "--quantize", "fp32+fp32-stem"], "unknown quantization recipe 'fp32+fp32-stem'"),
    (["export", "--target", "linux", "--quantize", "auto"], "Fashion-MNIST was not found"),
    (["export", "--target", "linux", "--quantize", "auto", "--fused"], "compares bundles without a fused model"),
    (
        ["export", "--target", "linux", "--quantize", "int8-static+fp32-stem", "--fused"],
        "a fused model has no stem of its own; leave out fused (--fused), or use the recipe 'int8-static'",
    ),
    (["inspect", "nowhere.paraedge"], "nowhere.paraedge does not exist"),
    (["verify", "nowhere.zip"], "nowhere.zip does not exist"),
    (["run", "nowhere.png"], "nowhere.png does not exist"),
    (["run", "nowhere.paraedge"], "nowhere.paraedge does not exist"),
    (["subset", "nowhere.paraedge", "--branches", "1", "--out", "x"], "nowhere.paraedge does not exist"),
    (["update", "nowhere.paraedge", "x.paraedge"], "nowhere.paraedge does not exist"),
    (["apply", "x.zip", "nowhere.paraedge", "--out", "y"], "nowhere.paraedge does not exist"),
    (["extend", "nowhere", "--out", "x"], "nowhere is neither a packaged model"),
    (["extend", "fashion-mnist", "--out", "x", "--dataset", "digits"], "digits has images of 8×8×1"),
    (["extend", "fashion-mnist", "--out", "x", "--branches", "0"], "0 is not in the range x>=1"),
    (["pack", "nowhere.paraedge"], "nowhere.paraedge does not exist"),
    (["evaluate", "nowhere"], "nowhere is neither a packaged model"),
    (["evaluate", "--dataset", "mnist"], "unknown data set 'mnist'; choose one of digits, fashion-mnist"),
    (["evaluate", "--dataset", "fashion-mnist"], "Fashion-MNIST was not found"),
    (["train", "--out", "x", "--data-dir", "nowhere"], "the data folder nowhere does not exist"),
    (["train", "--out", "x", "--dataset", "cifar10"], "CIFAR-10 was not found"),
    (
        ["train", "--out", "x", "--dataset", "digits", "--set", "embed_dim=10"],
        "embed_dim 10 is not a multiple of num_heads",
    ),
    (["train", "--out", "x", "--dataset", "digits", "--epochs", "0"], "invalid epochs 0; give at least 1"),
    (
        ["train", "--out", "x", "--set", "num_branch=2"],
        "unknown setting 'num_branch'; did you mean 'num_branches'? choose",
    ),
    (["train", "--out", "x", "--set", "epochs=two"], "invalid epochs 'two': Expected `int`, got `str`"),
    (["train", "--out", "x", "--set", "epochs"], "'epochs' is not a setting; give KEY=VALUE"),
    (
        ["train", "--out", "x", "--init", "fashion-mnist", "--set", "num_branches=2"],
        "--init decides the shape of the network; leave out --set num_branches",
    ),
    (["train", "--out", "x", "--dataset", "digits", "--log", "gone/x.log"], "there is no folder gone; make it first"),
    (["train", "--out", "x", "--dataset", "digits", "--log", "."], "'.' is a directory"),
    (
        ["train", "--out", "x", "--dataset", "digits", "--log", "x/train.log"],
        "--log is x/train.log, inside --out, a folder that holds a checkpoint and nothing else; name a file beside it",
    ),
    (["train", "--out", "x/", "--dataset", "digits", "--log", "y/../x/below/l"], "y/../x/below/l, inside --out,"),
    (["extend", "fashion-mnist", "--out", "x", "--log", "x/train.log"], "--log is x/train.log, inside --out,"),
    (["train", "--out", "x", "--dataset", "digits", "--log", "x"], "--log is x, a file that the training writes"),
    (["train", "--out", "x/", "--dataset", "digits", "--log", "./x.resume"], "x.resume, a file that the training"),
    (["extend", "fashion-mnist", "--out", "x", "--log", "x.resume"], "x.resume, a file that the training writes"),
    (["train", "--out", "x", "--log", __file__], "which exists and is not a training log; choose another file"),
    (
        ["train", "--out", "x", "--dataset", "digits", "--backbone", "efficientnet-lite0"],
        "efficientnet-lite0 reads images in colour, those of digits are grey; leave out --grey or --backbone, or give",
    ),
    (["train", "--dataset", "digits"], "Missing option '--out'"),
    (["train", "--out", "x", "--recipe", "best"], "unknown recipe 'best'; choose one of plain, fashion-mnist"),
    (["train", "--out", "x", "--recipe", "none.json"], "none.json cannot be read"),
    (
        ["train", "--out", "x", "--dataset", "digits", "--holdout", "1437"],
        "cannot hold out 1437 of the 1437 train images of digits",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(row[0]) for row in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    assert message in fail(*arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_mistakes_with_a_real_bundle(bundle, tmp_path):
    (tmp_path / "not-a-image.png").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "keep.txt").write_text("precious")
    rows = [
        (["run", bundle, "--branches", "9"], "9 branches requested"),
        (["run", bundle, "--threads", "0"], "threads must be an integer of at least 1, got 0"),
        (["run", bundle, "--engine", "onnxruntime"], "was made for 'litert'"),
        (["run", bundle, "missing.png"], "missing.png does not exist"),
        (["run", bundle, "folder"], "contains no images"),
        (["subset", bundle, "--branches", "0,9", "--out", "x"], "there is no branch 9"),
        (["subset", bundle, "--branches", "1", "--out", "folder"], "is not a bundle folder"),
        (["subset", bundle, "--branches", "1", "--out", bundle], "is the bundle itself"),
        (["pack", bundle, "--out", "folder"], "is a folder"),
        (["export", "--target", "linux", "--branches", "1", "--out", "folder"], "is not a bundle folder"),
        (["evaluate", bundle, "--plot", "x.pdf", "--data-dir", "folder"], "x.pdf does not end in .png"),
        (["subset", bundle, "--branches", "1", "--out", "/proc/x.paraedge"], "/proc/x.paraedge cannot be written: "),
        (["pack", bundle, "--out", "/proc/x.zip"], "/proc/x.zip cannot be written: "),
        (["evaluate", "--plot", "/proc/x.png"], "/proc/x.png cannot be written: "),
        (["inspect", "folder"], "has no manifest.json"),
        (["inspect", "not-a-image.png"], "neither a bundle folder nor a zip"),
    ]
    for arguments, message in rows:
        assert message in fail(*arguments, cwd=tmp_path), arguments
    assert (tmp_path / "folder" / "keep.txt").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "not-a-image.png"]
    assert Bundle.open(bundle)


def test_debug_shows_the_traceback(tmp_path):
    done = run("--debug", "inspect", "nowhere.paraedge", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
