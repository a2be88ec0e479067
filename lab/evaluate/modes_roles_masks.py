"""Measure what each mode, role, schedule and mask of Steer Features does on Revelio Mini."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from comfy_revelio.errors import RevelioError
from comfy_revelio.host.record.generation import encode, encoded_batches, generate_images, sample
from comfy_revelio.host.sae_files import SAEHandle
from comfy_revelio.host.steering import steer
from comfy_revelio.render import grid
from comfy_revelio.steering import Intervention, Selection, parse_selection

from .measure import SAMPLING, Studio, bundled_saes, open_studio
from .prompts import CONCEPTS, Prompt, others, prompts_naming, prompts_without, rate
from .steering_cost import ADDITION, REMOVAL

POINT = "output_blocks.4.1"
CONCEPT = CONCEPTS[0]
BATCH = 32
SHOWN = 2
"""How many prompts per direction are shown as images."""


@dataclass(frozen=True)
class Setting:
    """One way to steer.

    group: the table that lists this setting.
    whole: steer the concept itself instead of its labelled features.
    """

    group: str
    name: str
    direction: str
    strength: float
    whole: bool = True
    options: dict[str, Any] = field(default_factory=dict)


def settings() -> list[Setting]:
    """Return all settings, in the order of the tables."""
    out, into = -2.0, 1.5
    found = [
        Setting("modes", "push, the concept", REMOVAL, out),
        Setting("modes", "push", REMOVAL, out, False),
        Setting("modes", "ablate", REMOVAL, 1.0, False, {"mode": "ablate"}),
        Setting("modes", "scale", REMOVAL, -3.0, False, {"mode": "scale"}),
        Setting("modes", "clamp", REMOVAL, 0.2, False, {"mode": "clamp"}),
        Setting("modes", "add", REMOVAL, -1.0, False, {"mode": "add"}),
        Setting("modes", "push, the concept", ADDITION, into),
        Setting("modes", "push", ADDITION, 2.0, False),
        Setting("modes", "push, unit norm", ADDITION, 0.2, False, {"unit": "norm"}),
        Setting("modes", "add", ADDITION, 1.0, False, {"mode": "add"}),
        Setting("modes", "set", ADDITION, 1.0, False, {"mode": "set"}),
        Setting("modes", "only", ADDITION, 1.0, False, {"mode": "only"}),
        Setting("modes", "replace", ADDITION, 1.0, False, {"mode": "replace"}),
    ]
    for direction, strength in ((REMOVAL, out), (ADDITION, into)):
        for role in ("cond", "uncond", "both", "mirrored"):
            found.append(Setting("roles", role, direction, strength, True, {"role": role}))
        for start, end in ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0), (0.0, 0.5), (0.5, 1.0)):
            name = f"{start:.0%} to {end:.0%}"
            part = {"start_percent": start, "end_percent": end}
            found.append(Setting("schedules", name, direction, strength, True, part))
        for ramp in ("fade in", "fade out", "fade in and out"):
            found.append(Setting("schedules", ramp, direction, strength, True, {"ramp": ramp}))
    return found


def measure(
    count: int = 16, *, say: Callable[[str], None] = print
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Measure each setting on `count` prompts, and masks at every hook point; return metrics and images."""
    studio = open_studio()
    handles = {handle.dictionary.hook_point: handle for handle in bundled_saes()}
    if POINT not in handles:
        raise RevelioError(f"The bundled SAE of {POINT} is missing: install the pack again.")
    prompts = {REMOVAL: prompts_naming(CONCEPT, count), ADDITION: prompts_without(CONCEPT, count)}
    plain = {way: _draw(studio, studio.plain.model, chosen) for way, chosen in prompts.items()}
    report: dict[str, Any] = {"n_prompts": count, "concept": CONCEPT.name, "hook_point": POINT, **SAMPLING}
    report["plain"] = {way: _verdict(studio, plain[way], prompts[way], way) for way in prompts}
    shown: dict[str, list[tuple[Tensor, str]]] = {}
    for setting in settings():
        way = setting.direction
        model = _steered(studio, handles[POINT], setting)
        images = _draw(studio, model, prompts[way])
        row: dict[str, Any] = {"name": setting.name, "direction": way, "strength": setting.strength}
        row |= _verdict(studio, images, prompts[way], way)
        row["pixel_change"] = float((images - plain[way]).abs().mean())
        report.setdefault(setting.group, []).append(row)
        title = f"{setting.group}_{way}"
        shown.setdefault(title, [(image, "unsteered") for image in plain[way][:SHOWN]])
        shown[title] += [(image, f"{setting.name} {setting.strength:g}") for image in images[:SHOWN]]
        say(f"{setting.group}, {way}, {setting.name}: {row['rate']:.2f}, others {row['others']:.3f}")
    masked, mask_images = _masks(studio, handles, prompts[ADDITION], plain[ADDITION], say)
    report["masks"] = masked
    sheets = {name: _sheet(pairs) for name, pairs in shown.items()}
    return report, {**sheets, "masks": _sheet(mask_images)}


def _masks(
    studio: Studio,
    handles: dict[str, SAEHandle],
    prompts: Sequence[Prompt],
    plain: Tensor,
    say: Callable[[str], None],
) -> tuple[list[dict[str, Any]], list[tuple[Tensor, str]]]:
    """Add labelled features only in the left half of the image; measure the change inside and outside it.

    For the values "held ...", the sampler also keeps the unsteered image outside the mask.
    """
    mask = torch.zeros(1, *plain.shape[1:3])
    mask[:, :, : plain.shape[2] // 2] = 1.0
    rows = []
    shown = [(image, "unsteered") for image in plain[:SHOWN]]
    for point, handle in handles.items():
        if point.startswith("layers."):
            continue
        setting = Setting("masks", point, ADDITION, 2.0, False, {"mode": "add", "mask": mask})
        model = _steered(studio, handle, setting)
        images = _draw(studio, model, prompts)
        row: dict[str, Any] = {"hook_point": point}
        for prefix, drawn in (("", images), ("held ", _held(studio, model, prompts, mask))):
            change = (drawn - plain).abs().mean(-1)
            inside, outside = (float(change[:, (mask[0] == side)].mean()) for side in (1.0, 0.0))
            row |= {
                f"{prefix}inside": inside,
                f"{prefix}outside": outside,
                f"{prefix}ratio": outside / inside,
            }
            say(f"mask at {point}, {prefix or 'alone '}{inside:.4f} inside, {outside:.4f} outside")
        rows.append(row)
        shown += [(image, point) for image in images[:SHOWN]]
    return rows, shown


def _held(studio: Studio, model: Any, prompts: Sequence[Prompt], mask: Tensor) -> Tensor:
    """Sample unsteered images, then sample them again with the steered model only inside the mask."""
    clip, seeds = studio.plain.clip, [prompt.seed for prompt in prompts]
    negative = encode(clip, [""])
    images = []
    for part, positive in encoded_batches(clip, [prompt.text for prompt in prompts], BATCH):
        kept = sample(studio.plain.model, positive, negative, seeds[part], **SAMPLING)
        drawn = sample(model, positive, negative, seeds[part], latents=kept, noise_mask=mask, **SAMPLING)
        images.append(studio.vae.decode(drawn).float().cpu())
    return torch.cat(images)


def _steered(studio: Studio, handle: SAEHandle, setting: Setting) -> Any:
    dictionary = handle.dictionary
    concepts = dictionary.concepts if setting.whole else None
    selection: Selection = parse_selection(CONCEPT.name, dictionary, concepts)
    intervention = Intervention(dictionary, selection, setting.strength, **setting.options)
    return steer(studio.plain.model, intervention, handle)


def _draw(studio: Studio, model: Any, prompts: Sequence[Prompt]) -> Tensor:
    """Generate images [n, H, W, 3] of the prompts with `model`."""
    texts, seeds = [prompt.text for prompt in prompts], [prompt.seed for prompt in prompts]
    return generate_images(model, studio.plain.clip, studio.vae, texts, seeds, **SAMPLING)


def _verdict(studio: Studio, images: Tensor, prompts: Sequence[Prompt], way: str) -> dict[str, float]:
    found = studio.judge.label(images)
    return {
        "rate": rate(found, CONCEPT, also=way == REMOVAL),
        "others": others(found, prompts, CONCEPT),
    }


def _sheet(pairs: Sequence[tuple[Tensor, str]]) -> Tensor:
    """Arrange images in a grid with one column per setting and one row per prompt."""
    columns = len(pairs) // SHOWN
    ordered = [pairs[column * SHOWN + row] for row in range(SHOWN) for column in range(columns)]
    return grid([image for image, _ in ordered], [label for _, label in ordered], columns=columns)
