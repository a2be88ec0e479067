"""Every checkpoint layout: written as its authors' code writes it, read, and compared with their formula.

The formulas are transcribed here in float64 from the authors' code, apart from anything in the engine.
"""

from __future__ import annotations

import gzip
import json
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from comfy_revelio.dictionary import check_file, describe_file, load_dictionary
from comfy_revelio.errors import RevelioError

D, N, K = 12, 40, 5

Formula = Callable[[Tensor], tuple[Tensor, Tensor]]
"""x [rows, d] float64 -> dense codes [rows, n] and reconstruction [rows, d]."""


@dataclass
class Written:
    """A checkpoint on disk and what its authors' code computes with it."""

    path: Path
    formula: Formula
    source_format: str
    hook_point: str = ""
    captured: str = "output"


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kept(h: Tensor, k: int) -> Tensor:
    values, indices = h.topk(k, dim=-1)
    return torch.zeros_like(h).scatter(-1, indices, values)


def weights() -> dict[str, Tensor]:
    decoder = randn(D, N, seed=2)
    return {
        "enc": randn(N, D, seed=1),
        "enc_bias": randn(N, seed=3) * 0.3,
        "dec": decoder / decoder.norm(dim=0),
        "bias": randn(D, seed=4),
    }


def unbox(folder: Path, *, steerers: bool) -> Written:
    w = weights()
    name = "text_encoder.text_model.encoder.layers.9" if steerers else "unet.up_blocks.0.attentions.1"
    final = folder / f"{name}_k{K}_hidden{N}_auxk256_bs4096_lr0.0001" / "final"
    final.mkdir(parents=True)
    config = {"n_dirs_local": N, "d_model": D, "k": K, "auxk": 256, "dead_steps_threshold": 2441}
    (final / "config.json").write_text(json.dumps(config | ({"auxk_coef": 1 / 32} if steerers else {})))
    decoder = w["dec"].T.contiguous().T  # column-major, as a decoder that was tied at its birth
    state = {
        "pre_bias": w["bias"],
        "latent_bias": w["enc_bias"],
        "stats_last_nonzero": torch.zeros(N, dtype=torch.long),
        "encoder.weight": w["enc"],
        "decoder.weight": decoder,
    }
    torch.save({"state_dict": state}, final / "state_dict.pth")
    if not steerers:
        torch.save(torch.arange(N).float(), final / "mean.pt")
        torch.save(torch.ones(N), final / "std.pt")

    def formula(x: Tensor) -> tuple[Tensor, Tensor]:
        b = w["bias"].double()
        h = (x - b) @ w["enc"].double().T + w["enc_bias"].double()
        z = kept(h, K).relu()
        return z, z @ w["dec"].double().T + b * (2 if steerers else 1)

    return Written(
        final.parent,
        formula,
        "concept-steerers" if steerers else "sdxl-unbox",
        name.removeprefix("unet."),
        "output" if steerers else "diff",
    )


def sparsify(folder: Path, *, kind: str) -> Written:
    w = weights()
    place = folder / ("unet.up_blocks.1.attentions.1" if kind == "saeuron" else "layers.3.mlp")
    place.mkdir()
    config: dict[str, Any] = {
        "expansion_factor": 16, "normalize_decoder": True, "num_latents": N, "k": K, "multi_topk": False,
        "d_in": D,
    }  # fmt: skip
    if kind.startswith("saeuron"):
        config |= {"batch_topk": True, "sample_topk": False, "input_unit_norm": kind == "saeuron unit norm"}
    else:
        config |= {"activation": "groupmax" if kind == "groupmax" else "topk", "skip_connection": False,
                   "transcode": False}  # fmt: skip
    (place / "cfg.json").write_text(json.dumps(config))
    state = {"encoder.weight": w["enc"], "encoder.bias": w["enc_bias"], "W_dec": w["dec"].T.contiguous()}
    save_file({**state, "b_dec": w["bias"]}, place / "sae.safetensors")

    def formula(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = torch.zeros(len(x), 1).double(), torch.ones(len(x), 1).double()
        if config.get("input_unit_norm"):
            mean = x.mean(-1, keepdim=True)
            deviation = (x - mean).std(-1, keepdim=True)
            x = (x - mean) / (deviation + 1e-5)
        h = ((x - w["bias"].double()) @ w["enc"].double().T + w["enc_bias"].double()).relu()
        if kind == "groupmax":
            values, indices = h.unflatten(-1, (K, -1)).max(dim=-1)
            indices = indices + torch.arange(0, N, N // K)
            z = torch.zeros_like(h).scatter(-1, indices, values)
        else:
            z = kept(h, K)
        return z, (z @ w["dec"].double().T + w["bias"].double()) * deviation + mean

    named = "up_blocks.1.attentions.1" if kind == "saeuron" else ""
    return Written(place, formula, "saeuron" if kind.startswith("saeuron") else "sparsify", named)


def revelio(folder: Path, *, suffix: str) -> Written:
    w = weights()

    @dataclass
    class SDSAERunnerConfig:
        k: int = K
        d_in: int = D
        d_sae: int = N
        module_name: str = "up_blocks.1"
        device: Any = field(default_factory=lambda: torch.device("cpu"))
        dtype: Any = torch.float32
        lr: float = 4e-4
        feature_dir: Any = None

    module = types.ModuleType("training.config")
    SDSAERunnerConfig.__module__, SDSAERunnerConfig.__qualname__ = "training.config", "SDSAERunnerConfig"
    module.SDSAERunnerConfig = SDSAERunnerConfig  # type: ignore[attr-defined]
    state = OrderedDict(
        W_enc=w["enc"].T.contiguous(), b_enc=w["enc_bias"], W_dec=w["dec"].T.contiguous(), b_dec=w["bias"]
    )
    path = folder / f"final_k_sparse_autoencoder_mid_block_{N}.{suffix}"
    before = {name: sys.modules.get(name) for name in ("training", "training.config")}
    sys.modules.update({"training": types.ModuleType("training"), "training.config": module})
    try:
        content = {"cfg": SDSAERunnerConfig(), "state_dict": state}
        if suffix == "pt":
            torch.save(content, path)
        else:
            with gzip.open(path, "wb") as file:
                pickle.dump(content, file)
    finally:
        for name, old in before.items():
            if old is None:
                del sys.modules[name]
            else:
                sys.modules[name] = old

    def formula(x: Tensor) -> tuple[Tensor, Tensor]:
        z = kept((x - w["bias"].double()) @ w["enc"].double().T + w["enc_bias"].double(), K)
        return z, z @ w["dec"].double().T + w["bias"].double()

    return Written(path, formula, "revelio-paper", "up_blocks.1")


def saelens(folder: Path, *, architecture: str, options: dict[str, Any]) -> Written:
    w = weights()
    old_style = options.pop("old_style", False)
    config: dict[str, Any] = {
        "d_in": D, "d_sae": N, "dtype": "float32", "apply_b_dec_to_input": True,
        "normalize_activations": "none", "architecture": architecture,
    } | options  # fmt: skip
    W_dec = w["dec"].T.contiguous() * (0.5 + torch.rand(N, 1, generator=torch.Generator().manual_seed(8)))
    state = {"W_enc": w["enc"].T.contiguous(), "W_dec": W_dec, "b_dec": w["bias"]}
    extra = randn(N, seed=6) * 0.3
    if architecture == "gated":
        state |= {"b_gate": w["enc_bias"], "b_mag": extra, "r_mag": extra.flip(0).contiguous()}
    else:
        state |= {"b_enc": w["enc_bias"]}
    if architecture == "jumprelu":
        state |= {"threshold": extra.abs() * 3}
    if architecture == "batchtopk":
        state |= {"topk_threshold": torch.tensor(0.8, dtype=torch.double)}
    if old_style:
        config |= {"hook_point": "blocks.2.hook_resid_post", "activation_fn_str": "topk",
                   "activation_fn_kwargs": {"k": K}, "architecture": "standard"}  # fmt: skip
    else:
        config |= {"metadata": {"hook_name": "mid_block", "sae_lens_version": "6.20.0"}}
    if architecture == "topk" and not old_style:
        config |= {"k": K}
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(state, folder / "sae_weights.safetensors")

    def formula(x: Tensor) -> tuple[Tensor, Tensor]:
        s = {name: tensor.double() for name, tensor in state.items()}
        undo: Callable[[Tensor], Tensor] = lambda y: y  # noqa: E731
        if config["normalize_activations"] == "constant_norm_rescale":
            size = D**0.5 / x.norm(dim=-1, keepdim=True)
            x, undo = x * size, lambda y: y / size
        if config["normalize_activations"] == "layer_norm":
            mean = x.mean(-1, keepdim=True)
            deviation = (x - mean).std(-1, keepdim=True)
            x, undo = (x - mean) / (deviation + 1e-5), lambda y: y * deviation + mean
        x = x - s["b_dec"] * config["apply_b_dec_to_input"]
        norm = torch.ones(N).double()
        if architecture == "gated":
            active = x @ s["W_enc"] + s["b_gate"] > 0
            z = active * (x @ (s["W_enc"] * s["r_mag"].exp()) + s["b_mag"]).relu()
        else:
            h = x @ s["W_enc"] + s["b_enc"]
            if config.get("rescale_acts_by_decoder_norm"):
                norm = s["W_dec"].norm(dim=-1)
            h = h * norm
            if architecture == "topk":
                z = kept(h, K).relu()
            elif architecture == "standard":
                z = h.relu()
            else:
                z = h.relu() * (h > s.get("threshold", s.get("topk_threshold")))
        return z, undo((z / norm) @ s["W_dec"] + s["b_dec"])

    return Written(folder, formula, "saelens", "blocks.2.hook_resid_post" if old_style else "mid_block")


def dictionary_learning(folder: Path, *, kind: str, config: bool = True) -> Written:
    w = weights()
    threshold = torch.tensor(0.7)
    extra = randn(N, seed=6) * 0.3
    by_linear = {"encoder.weight": w["enc"], "encoder.bias": w["enc_bias"], "decoder.weight": w["dec"]}
    by_matrix = {"W_enc": w["enc"].T.contiguous(), "b_enc": w["enc_bias"], "W_dec": w["dec"].T.contiguous()}
    k = {"k": torch.tensor(K, dtype=torch.int)}
    states: dict[str, dict[str, Tensor]] = {
        "AutoEncoder": {"bias": w["bias"], **by_linear},
        "AutoEncoderNew": {**by_linear, "decoder.bias": w["bias"]},
        "AutoEncoderTopK": {"b_dec": w["bias"], **k, "threshold": torch.tensor(-1.0), **by_linear},
        "BatchTopKSAE": {"b_dec": w["bias"], **k, "threshold": threshold, **by_linear},
        "MatryoshkaBatchTopKSAE": {
            **by_matrix, "b_dec": w["bias"], **k, "threshold": threshold,
            "group_sizes": torch.tensor([N // 4, N - N // 4]),
        },
        "JumpReluAutoEncoder": {**by_matrix, "b_dec": w["bias"], "threshold": extra.abs() * 3},
        "GatedAutoEncoder": {
            "decoder_bias": w["bias"], "r_mag": extra, "gate_bias": w["enc_bias"], "mag_bias": extra.flip(0),
            "encoder.weight": w["enc"], "decoder.weight": w["dec"],
        },
    }  # fmt: skip
    torch.save(states[kind], folder / "ae.pt")
    if config:
        trainer = {
            "dict_class": kind,
            "activation_dim": D,
            "dict_size": N,
            "k": K,
            "submodule_name": "mid_block",
        }
        (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"d_submodule": D}}))

    def formula(x: Tensor) -> tuple[Tensor, Tensor]:
        W, b, dec, bias = (w[name].double() for name in ("enc", "enc_bias", "dec", "bias"))
        centred = x if kind in ("AutoEncoderNew", "JumpReluAutoEncoder") else x - bias
        h = centred @ W.T + b
        if kind == "GatedAutoEncoder":
            g = centred @ W.T
            z = (g + b > 0) * (extra.double().exp() * g + extra.flip(0).double()).relu()
        elif kind == "AutoEncoderTopK":
            z = kept(h.relu(), K)
        elif kind in ("AutoEncoder", "AutoEncoderNew"):
            z = h.relu()
        else:
            z = h.relu() * (h > (extra.abs() * 3 if kind == "JumpReluAutoEncoder" else threshold).double())
        return z, z @ dec.T + bias

    return Written(folder, formula, "dictionary-learning", "mid_block" if config else "")


def openai(folder: Path, *, kind: str, tied: bool = False) -> Written:
    w = weights()
    state: dict[str, Any] = {
        "pre_bias": w["bias"], "latent_bias": w["enc_bias"], "stats_last_nonzero": torch.zeros(N).long(),
        "latents_activation_frequency": torch.ones(N), "latents_mean_square": torch.zeros(N),
        "encoder.weight": w["enc"], "activation": kind.split()[0],
    }  # fmt: skip
    state |= {"decoder.linear.weight": w["enc"]} if tied else {"decoder.weight": w["dec"]}
    after = "Identity" if kind.endswith("Identity") else "ReLU"
    activation: dict[str, Any] = {"k": K, "postact_fn": after} if kind != "ReLU" else {}
    state["activation_state_dict"] = activation
    state |= {f"activation.{name}": value for name, value in activation.items()}
    path = folder / "autoencoder.pt"
    torch.save(state, path)

    def formula(x: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = torch.zeros(len(x), 1).double(), torch.ones(len(x), 1).double()
        if kind != "ReLU":
            mean = x.mean(-1, keepdim=True)
            x = x - mean
            deviation = x.std(-1, keepdim=True)
            x = x / (deviation + 1e-5)
        h = (x - w["bias"].double()) @ w["enc"].double().T + w["enc_bias"].double()
        z = h.relu() if kind == "ReLU" else kept(h, K)
        z = z.relu() if after == "ReLU" else z
        decoder = w["enc"].T if tied else w["dec"]
        return z, (z @ decoder.double().T + w["bias"].double()) * deviation + mean

    return Written(path, formula, "openai")


def flux_ff(folder: Path, *, use_topk: bool, normalised: bool = False, final: bool = False) -> Written:
    w = weights()
    config = {"layer": "layer15", "input_dim": D, "hidden_dim": N, "use_topk": use_topk, "l1_coeff": 0.0,
              "topk_k": K if use_topk else None, "normalize_data": normalised}  # fmt: skip
    state = {
        "pre_bias": w["bias"],
        "encoder.weight": w["enc"],
        "encoder.bias": w["enc_bias"],
        "decoder.weight": w["dec"],
    }
    path = folder / ("sae_final.pt" if final else "sae_best.pt")
    content = {"model_state_dict": OrderedDict(state), "config": config}
    # the schedule multiplies by a cosine of NumPy's, so that the log holds one of its numbers
    log = {"training_log": [{"epoch": 1, "lr": np.float64(1e-3)}], "final_metrics": {"avg_l0": 3.5}}
    torch.save({"epoch": 7, **content} if not final else {**content, **log}, path)

    def formula(x: Tensor) -> tuple[Tensor, Tensor]:
        h = ((x - w["bias"].double()) @ w["enc"].double().T + w["enc_bias"].double()).relu()
        z = kept(h, K) if use_topk else h
        return z, z @ w["dec"].double().T + w["bias"].double()

    return Written(path, formula, "flux-ff", "transformer_blocks.15.ff")


def itda(folder: Path, *, subtract_mean: bool, scaled: bool = False, transcoder: bool = False) -> Written:
    xs = randn(64, D, seed=1)
    xs /= xs.norm(dim=1, keepdim=True)
    ys = randn(64, D, seed=5) if transcoder else xs.clone()
    std = randn(D, seed=6).exp() if scaled else torch.ones(D)
    xs[N:], ys[N:] = float("nan"), float("nan")  # the table is padded with memory that nobody wrote
    mean = randn(D, seed=4)
    config = {
        "d_model": D, "target_l0": K, "loss_threshold": 0.3, "add_error": False, "fvu_loss": True,
        "subtract_mean": subtract_mean, "start_size": 0, "error_k": None, "skip_connection": False,
        "preprocessing_steps": 1,
        "normalize": False, "max_add": None, "dictionary_size": N, "steps": 12,
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config))
    state = {"xs": xs, "ys": ys, "mean_x": mean, "mean_y": mean.clone(), "std_x": std}
    save_file({**state, "std_y": torch.ones(D), "weight": torch.full((D, D), torch.nan)},
              folder / "sae.safetensors")  # fmt: skip

    def formula(x: Tensor) -> tuple[Tensor, Tensor]:
        atoms = xs[:N].double()
        b = mean.double() * subtract_mean
        signal = x / std.double() - b  # their script divides, not their class
        z = torch.zeros(len(x), N).double()
        for _ in range(K):
            residual = signal - z @ atoms
            inner = residual @ atoms.T
            selected = z != 0
            selected[torch.arange(len(x)), inner.argmax(1)] = True
            gradient = selected * inner
            c = gradient @ atoms
            step = (c * residual).sum(1) / (c * c).sum(1).clamp(min=1e-3)
            z = (z + step[:, None] * gradient).relu()
        return z, (z @ ys[:N].double() + b) * (1 if transcoder else std.double())

    return Written(folder, formula, "itda")


LAYOUTS: dict[str, Callable[[Path], Written]] = {
    "sdxl-unbox": lambda f: unbox(f, steerers=False),
    "steerers": lambda f: unbox(f, steerers=True),
    "saeuron": lambda f: sparsify(f, kind="saeuron"),
    "saeuron unit norm": lambda f: sparsify(f, kind="saeuron unit norm"),
    "sparsify": lambda f: sparsify(f, kind="sparsify"),
    "sparsify groupmax": lambda f: sparsify(f, kind="groupmax"),
    "revelio pt": lambda f: revelio(f, suffix="pt"),
    "revelio pkl.gz": lambda f: revelio(f, suffix="pkl.gz"),
    "saelens standard": lambda f: saelens(f, architecture="standard", options={}),
    "saelens standard, no centring": lambda f: saelens(
        f, architecture="standard", options={"apply_b_dec_to_input": False}
    ),
    "saelens topk": lambda f: saelens(f, architecture="topk", options={}),
    "saelens topk, old": lambda f: saelens(f, architecture="topk", options={"old_style": True}),
    "saelens topk, rescaled": lambda f: saelens(
        f, architecture="topk", options={"rescale_acts_by_decoder_norm": True}
    ),
    "saelens batchtopk": lambda f: saelens(
        f, architecture="batchtopk", options={"rescale_acts_by_decoder_norm": True}
    ),
    "saelens jumprelu": lambda f: saelens(f, architecture="jumprelu", options={}),
    "saelens gated": lambda f: saelens(f, architecture="gated", options={}),
    "saelens layer norm": lambda f: saelens(
        f, architecture="jumprelu", options={"normalize_activations": "layer_norm"}
    ),
    "saelens constant norm": lambda f: saelens(
        f, architecture="topk", options={"normalize_activations": "constant_norm_rescale"}
    ),
    **{
        f"dictionary_learning {kind}": (lambda f, kind=kind: dictionary_learning(f, kind=kind))
        for kind in (
            "AutoEncoder", "AutoEncoderNew", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE",
            "JumpReluAutoEncoder", "GatedAutoEncoder",
        )
    },
    **{
        f"dictionary_learning {kind}, no config": (
            lambda f, kind=kind: dictionary_learning(f, kind=kind, config=False)
        )
        for kind in ("AutoEncoderTopK", "BatchTopKSAE", "JumpReluAutoEncoder")
    },
    "openai topk": lambda f: openai(f, kind="TopK"),
    "openai topk, signed": lambda f: openai(f, kind="TopK Identity"),
    "openai relu": lambda f: openai(f, kind="ReLU"),
    "openai relu, tied": lambda f: openai(f, kind="ReLU", tied=True),
    "flux ff topk": lambda f: flux_ff(f, use_topk=True),
    "flux ff relu": lambda f: flux_ff(f, use_topk=False),
    "flux ff, last checkpoint": lambda f: flux_ff(f, use_topk=True, final=True),
    "itda": lambda f: itda(f, subtract_mean=False),
    "itda, centred": lambda f: itda(f, subtract_mean=True),
    "itda, scaled": lambda f: itda(f, subtract_mean=False, scaled=True),
    "itda, scaled and centred": lambda f: itda(f, subtract_mean=True, scaled=True),
    "itda, transcoder": lambda f: itda(f, subtract_mean=True, scaled=True, transcoder=True),
}  # fmt: skip

INPUTS: dict[str, Callable[[], Tensor]] = {
    "plain": lambda: randn(3, 7, D, seed=20),
    "not contiguous": lambda: randn(D, 7, 3, seed=21).permute(2, 1, 0),
    "float16": lambda: randn(3, 7, D, seed=22).half(),
    "bfloat16": lambda: randn(3, 7, D, seed=23).bfloat16(),
    "large": lambda: randn(3, 7, D, seed=24) * 3e4,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_codes_and_reconstructions_are_those_of_the_authors(tmp_path: Path, layout: str) -> None:
    written = LAYOUTS[layout](tmp_path)
    dictionary = load_dictionary(written.path)
    assert dictionary.source_format == written.source_format
    assert (dictionary.hook_point, dictionary.captured) == (written.hook_point, written.captured)
    for name, make in INPUTS.items():
        x = make()
        z, reconstruction = written.formula(x.double().reshape(-1, D))
        codes = dictionary.encode(x)
        near(codes.dense(), z.reshape(*x.shape[:-1], -1), f"codes, {name}")
        near(dictionary.decode(codes), reconstruction.reshape(x.shape), f"reconstruction, {name}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_survives_the_native_layout(tmp_path: Path, layout: str) -> None:
    """Saved as ours and loaded again, it is the same dictionary bit for bit."""
    from comfy_revelio.dictionary import save_dictionary

    dictionary = load_dictionary(LAYOUTS[layout](tmp_path).path, hook_point="middle_block.1")
    save_dictionary(dictionary, tmp_path / "ours.safetensors", dtype=torch.float32)
    again = load_dictionary(tmp_path / "ours.safetensors")
    x = randn(4, D, seed=25)
    assert torch.equal(again.encode(x).dense(), dictionary.encode(x).dense())
    assert torch.equal(again(x), dictionary(x))
    assert describe_file(tmp_path / "ours.safetensors")["hook_point"] == "middle_block.1"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_steering_adds_what_the_decoder_would(tmp_path: Path, layout: str) -> None:
    """A feature's contribution is the difference of two reconstructions, whatever the normalisation."""
    dictionary = load_dictionary(LAYOUTS[layout](tmp_path).path)
    x = randn(2, 3, D, seed=26) * 5
    codes = dictionary.encode(x)
    feature = int(codes.indices[0, 0, 0])
    before = codes.of_many(torch.tensor([feature]))
    without = type(codes)(
        codes.indices,
        torch.where(codes.indices == feature, 0.0, codes.values),
        codes.n_features,
        codes.scale,
        codes.shift,
    )
    expected = (dictionary.decode(codes) - dictionary.decode(without)).double()
    near(dictionary.contribution(before, [feature], x), expected, "contribution")
    near(dictionary.contribution(before, [feature], x, codes=codes), expected, "contribution of the codes")


def test_statistics_beside_the_weights_are_read(tmp_path: Path) -> None:
    dictionary = load_dictionary(unbox(tmp_path, steerers=False).path)
    assert dictionary.stats is not None
    assert dictionary.stats.mean_active.tolist() == list(range(N))
    assert dictionary.stats.rate is None


def test_the_user_overrides_what_the_names_say(tmp_path: Path) -> None:
    path = unbox(tmp_path, steerers=False).path
    dictionary = load_dictionary(path, hook_point="middle_block.1", captured="output")
    assert (dictionary.hook_point, dictionary.captured) == ("middle_block.1", "output")
    with pytest.raises(RevelioError, match="Unknown captured 'input'"):
        load_dictionary(path, captured="input")


@pytest.mark.parametrize(
    "layout", ["sdxl-unbox", "saeuron", "saelens topk", "itda", "dictionary_learning AutoEncoder"]
)
def test_a_list_of_choices_shows_it(tmp_path: Path, layout: str) -> None:
    check_file(LAYOUTS[layout](tmp_path).path)


Spoil = Callable[[dict[str, Any], dict[str, Any]], None]

FAULTS: dict[str, tuple[Spoil, str]] = {
    "missing": (lambda t, c: t.pop("W_dec"), "match no known layout"),
    "missing bias": (lambda t, c: t.pop("b_dec"), "b_dec are missing"),
    "extra": (lambda t, c: t.update(W_what=torch.zeros(3)), "unknown tensors W_what"),
    "not finite": (lambda t, c: t["b_dec"].fill_(torch.inf), "b_dec contains numbers that are not finite"),
    "whole numbers": (lambda t, c: t.update(b_dec=torch.zeros(D).long()), "b_dec is int64"),
    "wrong shape": (lambda t, c: t.update(W_dec=torch.zeros(N, D + 1)), "W_dec has the shape"),
    "wrong rank": (lambda t, c: t.update(W_dec=torch.zeros(N, D, 1)), "W_dec has the shape"),
    "wrong width": (lambda t, c: c.update(d_in=D + 1), "a width of 13"),
    "wrong size": (lambda t, c: c.update(num_latents=N + 1), "a number of features of 41"),
    "no k": (lambda t, c: c.pop("k"), "k as a whole number"),
    "k too large": (lambda t, c: c.update(k=N + 1), "k must be from 1"),
    "k no number": (lambda t, c: c.update(k="5"), "not '5'"),
    "unknown activation": (lambda t, c: c.update(activation="swish"), "activation is 'swish'"),
    "transcoder": (lambda t, c: c.update(transcode=True), "transcoder"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_off_is_refused_in_a_sentence(tmp_path: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    w = weights()
    tensors = {"encoder.weight": w["enc"], "encoder.bias": w["enc_bias"], "W_dec": w["dec"].T.contiguous(),
               "b_dec": w["bias"]}  # fmt: skip
    config = {"k": K, "d_in": D, "num_latents": N}
    spoil(tensors, config)
    save_file(tensors, tmp_path / "sae.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(RevelioError, match=message) as problem:
        load_dictionary(tmp_path)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("value", [["topk"], {"name": "topk"}, None, 7, "bogus"], ids=repr)
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if not name.startswith("revelio p")])
def test_a_config_of_other_types_is_read_or_refused_in_a_sentence(
    tmp_path: Path, layout: str, value: Any
) -> None:
    """Each setting of the config in turn: a list where a word belongs must not end in a traceback."""
    LAYOUTS[layout](tmp_path)
    for file in tmp_path.glob("**/*.json"):
        config = json.loads(file.read_text())
        for key in config:
            file.write_text(json.dumps(config | {key: value}))
            with suppress(RevelioError):
                load_dictionary(tmp_path)
        file.write_text(json.dumps(config))


def test_activations_that_nobody_can_make_again_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RevelioError, match="trained on standardised activations"):
        load_dictionary(flux_ff(tmp_path, use_topk=True, normalised=True).path)


@pytest.mark.parametrize("value", [0.0, -1.0, torch.nan])
def test_a_scale_that_nothing_can_be_divided_by_is_refused(tmp_path: Path, value: float) -> None:
    itda(tmp_path, subtract_mean=False)
    tensors = load_file(tmp_path / "sae.safetensors")
    tensors["std_x"][3] = value
    save_file(tensors, tmp_path / "sae.safetensors")
    with pytest.raises(RevelioError, match="std_x"):
        load_dictionary(tmp_path)


def test_the_best_of_a_training_run_is_taken_from_its_folder(tmp_path: Path) -> None:
    """As their script leaves it: sae_best.pt, sae_final.pt and files that are no weights."""
    flux_ff(tmp_path, use_topk=True, final=True)
    assert describe_file(tmp_path)["k"] == K
    check_file(tmp_path)
    flux_ff(tmp_path, use_topk=False)
    (tmp_path / "config.json").write_text(json.dumps({"input_dim": D}))
    assert describe_file(tmp_path)["activation"] == "relu"


def test_folders_without_one_or_with_too_many(tmp_path: Path) -> None:
    with pytest.raises(RevelioError, match="There is no dictionary in the folder"):
        load_dictionary(tmp_path)
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"x": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(RevelioError, match="contains several files"):
        load_dictionary(tmp_path)
    with pytest.raises(RevelioError, match="match no known layout"):
        load_dictionary(tmp_path / "a.safetensors")
    with pytest.raises(RevelioError, match="There is no file"):
        load_dictionary(tmp_path / "c.safetensors")


def near(found: Tensor, wanted: Tensor, what: str) -> None:
    """Equal within 1e-5 of the size of what is wanted."""
    error = (found.double() - wanted).abs().max() / wanted.abs().max()
    assert error < 1e-5, f"{what}: {error:.2e}"
