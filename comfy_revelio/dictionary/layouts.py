"""The checkpoint layouts of others: each is recognised by its content and read strictly.

What distinguishes them cannot be told from shapes, so every layout names the formula of its own code: how the
encoder's input is centred, which values are kept, which bias decoding adds, and how activations are
normalised. Facts and sources: the table in docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .dictionary import Dictionary
from .sources import Source, Stub, read_beside
from .stats import FeatureStats

Content = Mapping[str, Any]

_FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LARGEST = 2**20  # features or width beyond any dictionary there is


@dataclass(frozen=True)
class Layout:
    """of(config): its name, as source_format. matches(content, config): whether it is this one."""

    of: Callable[[Content], str]
    matches: Callable[[Content, Content], bool]
    read: Callable[[Source, Content], Dictionary]


def read_layout(source: Source, content: Content) -> Dictionary:
    """The dictionary in the content of a file; RevelioError when no layout fits or something is off."""
    layout = recognise(content, source.config)
    if layout is None:
        names = ", ".join(sorted(map(str, content))[:8]) or "none"
        raise source.refuse(f"its tensors ({names}) belong to no layout of a dictionary that is known here.")
    dictionary = layout.read(source, content)
    dictionary.source_format = layout.of(source.config)
    return dictionary


def recognise(content: Content, config: Content) -> Layout | None:
    """The layout that the names of the tensors point to."""
    return next((layout for layout in LAYOUTS if layout.matches(content, config)), None)


# ---------------------------------------------------------------- sdxl-unbox, Concept Steerers


def _is_unbox(content: Content, config: Content) -> bool:
    inner = content.get("state_dict")
    return "cfg" not in content and isinstance(inner, Mapping) and {"pre_bias", "latent_bias"} <= set(inner)


def _read_unbox(source: Source, content: Content) -> Dictionary:
    """x^ = relu(topk((x - pre_bias) W_e^T + latent_bias)) W_d^T + pre_bias, of block output - input.

    Concept Steerers trained with pre_bias taken off the target as well, so its weights reconstruct x only
    with 2 pre_bias. Both write the same keys; only its config has `auxk_coef`.
    """
    _only(source, content, "state_dict")
    t = take(
        source,
        content["state_dict"],
        {"pre_bias": "d", "latent_bias": "n", "encoder.weight": "nd", "decoder.weight": "dn"},
        {"stats_last_nonzero": "int n"},
    )
    k = whole(source, source.config, "k")
    _agree(
        source, t["encoder.weight"], d_in=source.config.get("d_model"), n=source.config.get("n_dirs_local")
    )
    steerers = "auxk_coef" in source.config
    stats = None
    if (mean := read_beside(source, "mean.pt")) is not None:
        if tuple(mean.shape) != (len(t["latent_bias"]),) or not bool(mean.isfinite().all()):
            raise source.refuse("mean.pt beside it is not one finite number for each feature.")
        stats = FeatureStats(mean.float())
    text = source.hook_point.startswith("text_encoder")
    return Dictionary(
        t["encoder.weight"],
        t["latent_bias"],
        t["decoder.weight"].T.contiguous(),
        t["pre_bias"],
        t["pre_bias"] * (2 if steerers else 1),
        k=k,
        hook_point=source.hook_point,
        captured="output" if steerers or text else "diff",
        stats=stats,
    )


# ---------------------------------------------------------------- Revelio


def _is_revelio(content: Content, config: Content) -> bool:
    return "cfg" in content and "state_dict" in content


def _read_revelio(source: Source, content: Content) -> Dictionary:
    """x^ = topk((x - b_dec) W_enc + b_enc) W_dec + b_dec, signed, of spatially averaged block outputs."""
    _only(source, content, "cfg", "state_dict")
    cfg = content["cfg"]
    settings: Content = cfg.state if isinstance(cfg, Stub) else cfg if isinstance(cfg, Mapping) else {}
    t = take(source, content["state_dict"], {"W_enc": "dn", "b_enc": "n", "W_dec": "nd", "b_dec": "d"})
    W_enc = t["W_enc"].T.contiguous()
    _agree(source, W_enc, d_in=settings.get("d_in"), n=settings.get("d_sae"))
    block = settings.get("block_name") if "up_" in str(settings.get("block_name")) else None
    named = block or settings.get("module_name") or ""
    return Dictionary(
        W_enc,
        t["b_enc"],
        t["W_dec"],
        t["b_dec"],
        t["b_dec"],
        k=whole(source, settings, "k"),
        activation="topk_signed",
        hook_point=named if isinstance(named, str) else "",
        pooling="spatial_mean",
    )


# ---------------------------------------------------------------- SAE of a FLUX.1-dev feed-forward block


def _is_flux_ff(content: Content, config: Content) -> bool:
    return "model_state_dict" in content


def _read_flux_ff(source: Source, content: Content) -> Dictionary:
    """x^ = topk(relu((x - pre_bias) W_e^T + b)) W_d^T + pre_bias, or all of relu without `use_topk`."""
    settings = content.get("config")
    if not isinstance(settings, Mapping):
        raise source.refuse("it has no config beside model_state_dict.")
    t = take(
        source,
        content["model_state_dict"],
        {"pre_bias": "d", "encoder.weight": "nd", "encoder.bias": "n", "decoder.weight": "dn"},
    )
    _agree(source, t["encoder.weight"], d_in=settings.get("input_dim"), n=settings.get("hidden_dim"))
    use_topk = settings.get("use_topk", True)
    return Dictionary(
        t["encoder.weight"],
        t["encoder.bias"],
        t["decoder.weight"].T.contiguous(),
        t["pre_bias"],
        t["pre_bias"],
        k=whole(source, settings, "topk_k") if use_topk else len(t["encoder.bias"]),
        activation="topk_relu" if use_topk else "relu",
        hook_point=source.hook_point,
    )


# ---------------------------------------------------------------- OpenAI


def _is_openai(content: Content, config: Content) -> bool:
    return {"pre_bias", "latent_bias", "encoder.weight"} <= set(content)


def _read_openai(source: Source, content: Content) -> Dictionary:
    """act((x - pre_bias) W_e^T + latent_bias) W_d^T + pre_bias; with TopK, x is layer-normalised first."""
    content = dict(content)
    activation = content.pop("activation", "ReLU")
    settings = content.pop("activation_state_dict", {})
    for name in ("k", "postact_fn"):  # state_dict() of its TopK puts them into the file a second time
        if f"activation.{name}" in content:
            again = content.pop(f"activation.{name}")
            if not isinstance(settings, Mapping) or settings.get(name) != again:
                raise source.refuse(f"it says two things about {name} of its activation.")
    tied = "decoder.linear.weight" in content
    t = take(
        source,
        content,
        {"pre_bias": "d", "latent_bias": "n", "encoder.weight": "nd"}
        | ({"decoder.linear.weight": "nd"} if tied else {"decoder.weight": "dn"}),
        {"stats_last_nonzero": "int n", "latents_activation_frequency": "n", "latents_mean_square": "n"},
    )
    n = len(t["latent_bias"])
    if activation == "TopK":
        after = settings.get("postact_fn", "ReLU") if isinstance(settings, Mapping) else None
        if after not in ("ReLU", "Identity"):
            raise source.refuse(f"its function after top-k is {after!r}, but known are ReLU and Identity.")
        kind, k = ("topk_relu" if after == "ReLU" else "topk_signed"), whole(source, settings, "k")
    elif activation == "ReLU":
        kind, k = "relu", n
    else:
        raise source.refuse(f"its activation is {activation!r}, but known are TopK and ReLU.")
    return Dictionary(
        t["encoder.weight"],
        t["latent_bias"],
        t["decoder.linear.weight"] if tied else t["decoder.weight"].T.contiguous(),
        t["pre_bias"],
        t["pre_bias"],
        k=k,
        activation=kind,
        normalise="layernorm" if activation == "TopK" else "none",
        hook_point=source.hook_point,
    )


# ---------------------------------------------------------------- ITDA


def _is_itda(content: Content, config: Content) -> bool:
    return {"xs", "ys"} <= set(content)


def _read_itda(source: Source, content: Content) -> Dictionary:
    """Atoms xs, weights by gradient pursuit, x^ from ys; the tables are padded beyond dictionary_size."""
    config = source.config
    t = take(
        source,
        content,
        {"xs": "nd", "ys": "nd"},
        {"mean_x": "d", "mean_y": "d", "std_x": "d", "std_y": "d", "weight": "dd"},
        finite=("mean_x", "mean_y"),  # the padding and unused tensors were never written
    )
    if config.get("skip_connection"):
        raise source.refuse("it has a skip connection, and what that adds is no sum of features.")
    padded, d = t["xs"].shape
    n = whole(source, config, "dictionary_size")
    if n > padded:
        raise source.refuse(f"it should have {n} atoms, but holds {padded}.")
    xs, ys = t["xs"][:n].contiguous(), t["ys"][:n].contiguous()
    for name, table in (("xs", xs), ("ys", ys)):
        if not bool(table.isfinite().all()):
            raise source.refuse(f"{name} holds numbers that are not finite.")
    _agree(source, xs, d_in=config.get("d_model"), n=None)
    nothing = torch.zeros(d)
    centred = bool(config.get("subtract_mean", False))
    return Dictionary(
        xs,
        torch.zeros(n),
        ys,
        t.get("mean_x", nothing) if centred else nothing,
        t.get("mean_y", nothing) if centred else nothing,
        k=min(whole(source, config, "target_l0"), n),
        activation="pursuit",
        hook_point=source.hook_point,
    )


# ---------------------------------------------------------------- EleutherAI sparsify, SAeUron, SAEmnesia


def _is_sparsify(content: Content, config: Content) -> bool:
    return {"encoder.weight", "encoder.bias", "W_dec"} <= set(content)


def _read_sparsify(source: Source, content: Content) -> Dictionary:
    """x^ = topk(relu((x - b_dec) W_e^T + b)) W_dec + b_dec.

    SAeUron trains with BatchTopK, but its own loading switches to top-k of every token, as here.
    """
    config = source.config
    if config.get("transcode") or config.get("skip_connection") or "W_skip" in content:
        raise source.refuse("it is a transcoder, not a dictionary of one activation space.")
    t = take(source, content, {"encoder.weight": "nd", "encoder.bias": "n", "W_dec": "nd", "b_dec": "d"})
    d_in, n = config.get("d_in"), config.get("num_latents") or None
    if n is None and type(d_in) is int and type(config.get("expansion_factor")) is int:
        n = d_in * config["expansion_factor"]
    _agree(source, t["encoder.weight"], d_in=d_in, n=n)
    activation = config.get("activation", "topk")
    if activation not in ("topk", "groupmax"):
        raise source.refuse(f"its activation is {activation!r}, but known are topk and groupmax.")
    return Dictionary(
        t["encoder.weight"],
        t["encoder.bias"],
        t["W_dec"],
        t["b_dec"],
        t["b_dec"],
        k=whole(source, config, "k"),
        activation="topk_relu" if activation == "topk" else "groupmax",
        normalise="layernorm" if config.get("input_unit_norm") else "none",
        hook_point=source.hook_point,
        captured="diff" if config.get("residual_sae") or config.get("output_or_diff") == "diff" else "output",
    )


# ---------------------------------------------------------------- dictionary_learning


def _is_dictionary_learning(content: Content, config: Content) -> bool:
    told = "trainer" in config or ("threshold" in content and not config)
    return told or "decoder.weight" in content or "group_sizes" in content


def _read_dictionary_learning(source: Source, content: Content) -> Dictionary:
    trainer = source.config.get("trainer", {})
    kind = trainer.get("dict_class") if isinstance(trainer, Mapping) else None
    if kind is None:
        kind = _class_by_keys(content)
    reader = _CLASSES.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise source.refuse(f"its class is {kind!r}, but known are {', '.join(_CLASSES)}.")
    dictionary = reader(source, content)
    if isinstance(trainer, Mapping):
        _agree(source, dictionary.W_enc, d_in=trainer.get("activation_dim"), n=trainer.get("dict_size"))
        if isinstance(named := trainer.get("submodule_name"), str):
            dictionary.hook_point = named
    return dictionary


def _class_by_keys(content: Content) -> str:
    """The class of a file without a config. AutoEncoderTopK and BatchTopKSAE have the same keys: a threshold
    that was never set (-1) is top-k's."""
    if "group_sizes" in content:
        return "MatryoshkaBatchTopKSAE"
    if "r_mag" in content:
        return "GatedAutoEncoder"
    if "W_enc" in content:
        return "JumpReluAutoEncoder"
    if "decoder.bias" in content:
        return "AutoEncoderNew"
    if "b_dec" in content:
        threshold = content.get("threshold")
        unset = not isinstance(threshold, Tensor) or threshold.numel() != 1 or float(threshold) < 0
        return "AutoEncoderTopK" if unset else "BatchTopKSAE"
    return "AutoEncoder"


def _read_autoencoder(source: Source, content: Content) -> Dictionary:
    """relu((x - bias) W_e^T + b) W_d^T + bias; its loader gives the decoder unit columns."""
    t = take(
        source, content, {"bias": "d", "encoder.weight": "nd", "encoder.bias": "n", "decoder.weight": "dn"}
    )
    W_enc, b_enc, W_dec = unit_decoder(t["encoder.weight"], t["encoder.bias"], t["decoder.weight"].T)
    return Dictionary(
        W_enc,
        b_enc,
        W_dec,
        t["bias"],
        t["bias"],
        k=len(b_enc),
        activation="relu",
        hook_point=source.hook_point,
    )


def _read_autoencoder_new(source: Source, content: Content) -> Dictionary:
    """relu(x W_e^T + b) W_d^T + b_d."""
    t = take(
        source,
        content,
        {"encoder.weight": "nd", "encoder.bias": "n", "decoder.weight": "dn", "decoder.bias": "d"},
    )
    b = t["decoder.bias"]
    return Dictionary(
        t["encoder.weight"],
        t["encoder.bias"],
        t["decoder.weight"].T.contiguous(),
        torch.zeros_like(b),
        b,
        k=len(t["encoder.bias"]),
        activation="relu",
        hook_point=source.hook_point,
    )


def _read_topk(source: Source, content: Content) -> Dictionary:
    """topk(relu((x - b_dec) W_e^T + b)) W_d^T + b_dec; for BatchTopK, all above one threshold."""
    t = take(
        source,
        content,
        {"encoder.weight": "nd", "encoder.bias": "n", "decoder.weight": "dn", "b_dec": "d"},
        {"k": "int ", "threshold": ""},
    )
    trainer = source.config.get("trainer", {})
    stored = int(t["k"]) if "k" in t else None
    k = stored if stored is not None else whole(source, trainer if isinstance(trainer, Mapping) else {}, "k")
    kind = trainer.get("dict_class") if isinstance(trainer, Mapping) and "dict_class" in trainer else None
    batch = (kind or _class_by_keys(content)) == "BatchTopKSAE"
    n = len(t["encoder.bias"])
    if not 1 <= k <= n:
        raise source.refuse(f"its k is {k}, but it has {n} features.")
    if batch and "threshold" not in t:
        raise source.refuse("it has no threshold, without which a BatchTopK dictionary cannot be used.")
    return Dictionary(
        t["encoder.weight"],
        t["encoder.bias"],
        t["decoder.weight"].T.contiguous(),
        t["b_dec"],
        t["b_dec"],
        k=n if batch else k,
        activation="jumprelu" if batch else "topk_relu",
        threshold=t["threshold"].expand(n).contiguous() if batch else None,
        hook_point=source.hook_point,
    )


def _read_matryoshka(source: Source, content: Content) -> Dictionary:
    """relu((x - b_dec) W_enc + b_enc) above one threshold, W_dec and b_dec: all groups, as it is loaded."""
    t = take(
        source,
        content,
        {"W_enc": "dn", "b_enc": "n", "W_dec": "nd", "b_dec": "d", "threshold": ""},
        {"k": "int ", "group_sizes": "int g"},
    )
    n = len(t["b_enc"])
    return Dictionary(
        t["W_enc"].T.contiguous(),
        t["b_enc"],
        t["W_dec"],
        t["b_dec"],
        t["b_dec"],
        k=n,
        activation="jumprelu",
        threshold=t["threshold"].expand(n).contiguous(),
        hook_point=source.hook_point,
    )


def _read_jumprelu(source: Source, content: Content) -> Dictionary:
    """relu(h) where h > threshold, h = x W_enc + b_enc; b_dec is added on the way out only."""
    t = take(source, content, {"W_enc": "dn", "b_enc": "n", "W_dec": "nd", "b_dec": "d", "threshold": "n"})
    return Dictionary(
        t["W_enc"].T.contiguous(),
        t["b_enc"],
        t["W_dec"],
        torch.zeros_like(t["b_dec"]),
        t["b_dec"],
        k=len(t["b_enc"]),
        activation="jumprelu",
        threshold=t["threshold"],
        hook_point=source.hook_point,
    )


def _read_gated(source: Source, content: Content) -> Dictionary:
    """relu(g exp(r_mag) + mag_bias) where g + gate_bias > 0, g = (x - decoder_bias) W_e^T."""
    t = take(
        source,
        content,
        {"decoder_bias": "d", "encoder.weight": "nd", "r_mag": "n", "gate_bias": "n", "mag_bias": "n",
         "decoder.weight": "dn"},
    )  # fmt: skip
    return Dictionary(
        t["encoder.weight"],
        t["mag_bias"],
        t["decoder.weight"].T.contiguous(),
        t["decoder_bias"],
        t["decoder_bias"],
        k=len(t["mag_bias"]),
        activation="gated",
        gate_bias=t["gate_bias"],
        magnitude=t["r_mag"].exp(),
        hook_point=source.hook_point,
    )


_CLASSES: dict[str, Callable[[Source, Content], Dictionary]] = {
    "AutoEncoder": _read_autoencoder,
    "AutoEncoderNew": _read_autoencoder_new,
    "AutoEncoderTopK": _read_topk,
    "BatchTopKSAE": _read_topk,
    "MatryoshkaBatchTopKSAE": _read_matryoshka,
    "JumpReluAutoEncoder": _read_jumprelu,
    "GatedAutoEncoder": _read_gated,
}


# ---------------------------------------------------------------- SAELens


def _is_saelens(content: Content, config: Content) -> bool:
    return {"W_enc", "W_dec", "b_dec"} <= set(content)


_NORMALISATIONS = {
    "none": "none",
    "expected_average_only_in": "none",  # done by the training code's data, not by the dictionary
    "constant_norm_rescale": "rms",
    "layer_norm": "layernorm",
}


def _read_saelens(source: Source, content: Content) -> Dictionary:
    """standard, topk, batchtopk, jumprelu and gated, of SAELens before and after its version 6."""
    config = source.config
    if not config:
        raise source.refuse("it needs the cfg.json that SAELens writes beside it.")
    architecture = config.get("architecture", "standard")
    function = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    details = config.get("activation_fn_kwargs")
    settings: dict[str, Any] = {**config, **(details if isinstance(details, Mapping) else {})}
    if architecture == "standard" and function == "topk":
        architecture = "topk"
    if architecture not in ("standard", "topk", "batchtopk", "jumprelu", "gated"):
        raise source.refuse(
            f"its architecture is {architecture!r}, but known are standard, topk, batchtopk, jumprelu "
            "and gated."
        )
    normalise = config.get("normalize_activations") or "none"
    normalise = "expected_average_only_in" if normalise is True else normalise
    if normalise not in _NORMALISATIONS:
        raise source.refuse(
            f"its normalisation is {normalise!r}, but known are {', '.join(_NORMALISATIONS)}."
        )
    own = {
        "standard": {"b_enc": "n"},
        "topk": {"b_enc": "n"},
        "batchtopk": {"b_enc": "n", "topk_threshold": ""},
        "jumprelu": {"b_enc": "n", "threshold": "n"},
        "gated": {"b_gate": "n", "b_mag": "n", "r_mag": "n"},
    }[architecture]
    t = take(source, content, {"W_enc": "dn", "W_dec": "nd", "b_dec": "d", **own}, {"scaling_factor": "n"})
    W_enc, W_dec, b_dec = t["W_enc"].T.contiguous(), t["W_dec"], t["b_dec"]
    n = len(W_enc)
    _agree(source, W_enc, d_in=config.get("d_in"), n=config.get("d_sae"))
    b_enc = t["b_mag"] if architecture == "gated" else t["b_enc"]
    threshold = t.get("threshold")
    if architecture == "batchtopk":
        threshold = t["topk_threshold"].expand(n).contiguous()
    if config.get("rescale_acts_by_decoder_norm") and architecture in ("topk", "batchtopk"):
        W_enc, b_enc, W_dec = unit_decoder(W_enc, b_enc, W_dec)
    if (factor := t.get("scaling_factor")) is not None and not torch.allclose(
        factor, torch.ones_like(factor)
    ):
        if not config.get("finetuning_scaling_factor"):
            raise source.refuse("it has a scaling_factor that its config does not ask for.")
        W_dec = W_dec * factor[:, None]
    centred = config.get("apply_b_dec_to_input", True)
    metadata = config.get("metadata")
    named = {**config, **(metadata if isinstance(metadata, Mapping) else {})}
    hook_point = named.get("hook_name", named.get("hook_point"))
    return Dictionary(
        W_enc,
        b_enc,
        W_dec,
        b_dec if centred else torch.zeros_like(b_dec),
        b_dec,
        k=whole(source, settings, "k") if architecture == "topk" else n,
        activation={"standard": "relu", "topk": "topk_relu", "gated": "gated"}.get(architecture, "jumprelu"),
        threshold=threshold,
        gate_bias=t.get("b_gate"),
        magnitude=t["r_mag"].exp() if architecture == "gated" else None,
        normalise=_NORMALISATIONS[normalise],
        hook_point=hook_point if isinstance(hook_point, str) else source.hook_point,
    )


LAYOUTS = (
    Layout(lambda _: "revelio-paper", _is_revelio, _read_revelio),
    Layout(lambda _: "flux-ff", _is_flux_ff, _read_flux_ff),
    Layout(
        lambda config: "concept-steerers" if "auxk_coef" in config else "sdxl-unbox", _is_unbox, _read_unbox
    ),
    Layout(lambda _: "openai", _is_openai, _read_openai),
    Layout(lambda _: "itda", _is_itda, _read_itda),
    Layout(lambda config: "saeuron" if "sample_topk" in config else "sparsify", _is_sparsify, _read_sparsify),
    Layout(lambda _: "dictionary-learning", _is_dictionary_learning, _read_dictionary_learning),
    Layout(lambda _: "saelens", _is_saelens, _read_saelens),
)


# ---------------------------------------------------------------- strict reading


def take(
    source: Source,
    found: Any,
    required: Mapping[str, str],
    optional: Mapping[str, str] | None = None,
    *,
    finite: tuple[str, ...] | None = None,
) -> dict[str, Tensor]:
    """Exactly the named tensors, float32, with shapes that agree; RevelioError otherwise.

    A shape is spelt with one letter for each dimension ("nd" and "dn" must agree on n and d; "" is a single
    number); "int " before it asks for whole numbers, which keep their type. finite: the names in which NaN
    and infinity are refused; by default all.
    """
    if not isinstance(found, Mapping):
        raise source.refuse("its tensors are in no table.")
    wanted = {**required, **(optional or {})}
    missing = [name for name in required if name not in found]
    extra = sorted(str(name) for name in found if name not in wanted)
    if missing:
        raise source.refuse(f"the tensors {', '.join(missing)} are missing.")
    if extra:
        raise source.refuse(f"it has the unknown tensors {', '.join(extra[:6])}.")
    sizes: dict[str, int] = {}
    result = {}
    for name, spelt in wanted.items():
        if name not in found:
            continue
        tensor = found[name]
        whole_numbers, letters = spelt.startswith("int "), spelt.removeprefix("int ")
        if not isinstance(tensor, Tensor) or (tensor.dtype in _FLOAT_TYPES) == whole_numbers:
            kind = str(tensor.dtype).removeprefix("torch.") if isinstance(tensor, Tensor) else "no tensor"
            raise source.refuse(
                f"{name} is {kind}, not {'whole' if whole_numbers else 'floating-point'} numbers."
            )
        if tensor.ndim == 1 and not letters and len(tensor) == 1:
            tensor = tensor[0]
        if tensor.ndim != len(letters):
            raise source.refuse(
                f"{name} has the shape {list(tensor.shape)}, but {len(letters)} dimensions belong."
            )
        for letter, size in zip(letters, tensor.shape, strict=True):
            if sizes.setdefault(letter, size) != size or not 0 < size <= _LARGEST:
                raise source.refuse(
                    f"{name} has the shape {list(tensor.shape)}, which does not fit its other tensors."
                )
        if not whole_numbers:
            tensor = tensor.float()
            if (finite is None or name in finite) and not bool(tensor.isfinite().all()):
                raise source.refuse(f"{name} holds numbers that are not finite.")
        result[name] = tensor
    return result


def whole(source: Source, settings: Content, name: str) -> int:
    """A whole number above 0 of a config; RevelioError otherwise."""
    value = settings.get(name)
    if type(value) is not int or value < 1:
        raise source.refuse(f"its config should say {name} as a whole number from 1, not {value!r}.")
    return value


def unit_decoder(W_enc: Tensor, b_enc: Tensor, W_dec: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same reconstruction with decoder rows of length 1: codes are in units of the output."""
    norms = W_dec.double().norm(dim=1)
    safe = norms.clamp(min=torch.finfo(torch.float32).tiny)
    return (
        (W_enc.double() * norms[:, None]).float(),
        (b_enc.double() * norms).float(),
        (W_dec.double() / safe[:, None]).float().contiguous(),
    )


def _only(source: Source, content: Content, *names: str) -> None:
    extra = sorted(set(map(str, content)) - set(names))
    if extra:
        raise source.refuse(f"it has the unknown entries {', '.join(extra[:6])}.")


def _agree(source: Source, W_enc: Tensor, *, d_in: Any, n: Any) -> None:
    """The sizes that a config names must be those of the weights."""
    for what, said, is_ in (("width", d_in, W_enc.shape[1]), ("number of features", n, W_enc.shape[0])):
        if said is not None and said != is_:
            raise source.refuse(f"its config says a {what} of {said!r}, but its weights have {is_}.")
