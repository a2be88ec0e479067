"""The command line: inspect, convert, train and evaluate reconstruction, as a researcher calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from comfy_revelio.cli.main import main
from comfy_revelio.cli.options import ProgressBar
from comfy_revelio.dictionary import load_dictionary, save_dictionary
from comfy_revelio.training import ShardWriter
from comfy_revelio.training.shards import Source

D, GRID = 16, (3, 5)


@pytest.fixture
def harvested(tmp_path: Path) -> Path:
    """60 items of 15 tokens at two timesteps: sums of 3 of 24 directions."""
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(24, D, generator=g), dim=1)
    source = Source("tiny", "middle_block.1", "diff", D, GRID, {})
    with ShardWriter(tmp_path / "rows", source, dtype=torch.float32, shard_bytes=20_000) as writer:
        for item in range(60):
            for t in (900.0, 100.0):
                chosen = torch.rand(15, 24, generator=g).argsort(1)[:, :3]
                writer.add(item, t, directions[chosen].sum(dim=1) + 1)
            writer.finish_item(item)
    return tmp_path / "rows"


QUICK = ["--steps", "150", "--batch", "128", "--n-features", "48", "--k", "4", "--learning-rate", "0.005"]


def test_train_measure_inspect(harvested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sae.safetensors"
    command = [
        "train",
        str(harvested),
        str(out),
        *QUICK,
        "--option",
        "warmup=10",
        "--device",
        "cpu",
        "--json",
    ]
    assert main(command) == 0
    printed = capsys.readouterr()
    metrics = json.loads(printed.out)
    assert metrics["explained_variance"] > 0.6
    assert [bucket["from"] for bucket in metrics["by_timestep"]] == [0.0, 800.0]
    assert "150/150" in printed.err
    assert not list(tmp_path.glob("*.training"))
    dictionary = load_dictionary(out)
    assert (dictionary.hook_point, dictionary.captured) == ("middle_block.1", "diff")
    assert dictionary.stats is not None and dictionary.stats.mean_map is not None
    assert dictionary.stats.mean_map.shape == (48, *GRID)

    assert main(["evaluate", "reconstruction", str(out), str(harvested), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    # the file keeps float16, so nearly the same
    assert measured["explained_variance"] == pytest.approx(metrics["explained_variance"], abs=0.005)
    assert main(["evaluate", "reconstruction", str(out), str(harvested), "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measured_rows"] == 60 * 2 * 15

    assert main(["inspect", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_features"] == 48


def test_train_with_every_recipe_flag_wrong(harvested: Path, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "sae.safetensors")
    for extra, message in (
        (["--preset", "best"], "no preset 'best'"),
        (["--option", "speed=3"], "no option speed"),
        (["--option", "speed"], "NAME=VALUE"),
        (["--option", "warmup=long"], "warmup must be a whole number, not 'long'"),
        (["--option", "betas=0.9"], "betas must be two numbers"),
        (["--option", "unit_decoder=1"], "unit_decoder must be true or false"),
        (["--option", "ema=NaN"], "ema must be a number, not nan"),
        (["--expansion", "-1"], "expansion must be a number above 0"),
        (["--device", "cuda:77"], "no device 'cuda:77'"),
        (["--device", "abacus"], "no device 'abacus'"),
        (["--k", "99", "--n-features", "48"], "k must be from 1"),
    ):
        assert main(["train", str(harvested), out, *extra]) == 2
        assert message in capsys.readouterr().err
    assert main(["train", str(harvested), str(tmp_path / "sae.pt")]) == 2
    assert "must end in .safetensors" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "nothing"), out]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit) as stop:
        main(["train", str(harvested), out, "--k", "few"])
    assert stop.value.code == 2
    assert "must be a whole number from 1, not 'few'" in capsys.readouterr().err


def test_too_few_items_are_reported_before_the_work(tmp_path: Path, capsys) -> None:
    """Without a held-out item there would be no metrics, and a trained dictionary would be lost."""
    source = Source("tiny", "middle_block.1", "output", D, GRID, {})
    with ShardWriter(tmp_path / "rows", source, dtype=torch.float32) as writer:
        writer.add(0, 100.0, torch.randn(15, D))
        writer.finish_item(0)
    out = tmp_path / "sae.safetensors"
    assert main(["train", str(tmp_path / "rows"), str(out), "--batch", "4", "--k", "4"]) == 2
    told = capsys.readouterr().err
    assert "only 1 images or texts, which leaves none to measure" in told and told.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["rows"]


def test_convert_reads_foreign_layouts(tmp_path: Path, capsys, make_dictionary) -> None:
    g = torch.Generator().manual_seed(0)
    tensors = {
        "encoder.weight": torch.randn(40, 12, generator=g), "encoder.bias": torch.zeros(40),
        "W_dec": torch.randn(40, 12, generator=g), "b_dec": torch.randn(12, generator=g),
    }  # fmt: skip
    folder = tmp_path / "unet.up_blocks.1.attentions.1"
    folder.mkdir()
    save_file(tensors, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"k": 4, "d_in": 12, "num_latents": 40}))
    out = tmp_path / "ours.safetensors"
    assert main(["convert", str(folder), str(out), "--float32", "--captured", "diff", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["hook_point"], told["captured"]) == ("up_blocks.1.attentions.1", "diff")
    x = torch.randn(3, 12)
    assert torch.equal(load_dictionary(out)(x), load_dictionary(folder)(x))
    assert main(["inspect", str(folder)]) == 0
    assert "source_format: sparsify" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "nothing"), str(out)]) == 2
    assert "There is no file" in capsys.readouterr().err
    assert main(["convert", str(folder), str(out), "--k", "3"]) == 2
    assert "--k is for Orbax checkpoints" in capsys.readouterr().err
    (tmp_path / "10").mkdir()
    (tmp_path / "10" / "_METADATA").write_text("{}")
    assert main(["inspect", str(tmp_path / "10")]) == 2
    assert "is an Orbax checkpoint" in capsys.readouterr().err


def test_widths_must_agree(harvested: Path, tmp_path: Path, capsys, make_dictionary) -> None:
    save_dictionary(make_dictionary(), tmp_path / "other.safetensors")
    assert main(["evaluate", "reconstruction", str(tmp_path / "other.safetensors"), str(harvested)]) == 2
    assert "12 wide" in capsys.readouterr().err


def test_a_progress_bar_begins_where_the_work_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError), ProgressBar("items") as progress:
        progress(4, 8)
        progress(6, 8)
        raise ValueError
    shown = capsys.readouterr().err
    assert shown.index("4/8 [") < shown.index("6/8 [") and "0/8" not in shown
    assert shown.endswith("\n")  # so that an error has a line of its own
