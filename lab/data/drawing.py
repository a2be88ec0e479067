"""Turn labels into the DiceBear options that draw them.

Only variants whose meaning is clear at 128 x 128 pixels are used; each was checked by eye. Everything that
has no label (shape of the hair, nose, earrings, exact shade) varies freely with the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .attributes import HIDDEN, Labels, generator, to_dict, value_name

HAIR = {
    "black": "17151a",
    "brown": "5f3718",
    "blonde": "f0cd62",
    "red": "c22a1c",
    "blue": "2c62dc",
    "green": "2f9e44",
    "pink": "ee62b4",
    "gray": "a6abb3",
}
SKIN = {"light": "f7d5bb", "medium": "cb9061", "dark": "87523a"}
BACKGROUND = {
    "white": "f5f5f3",
    "yellow": "f7d94e",
    "orange": "f79a45",
    "red": "e2574f",
    "pink": "fab9d3",
    "purple": "b295e6",
    "blue": "86c3f3",
    "green": "8fd694",
}
CLOTHES = {
    "red": "d93a34",
    "yellow": "f2c12e",
    "green": "3aa655",
    "blue": "2f6fd6",
    "purple": "8146c4",
    "black": "2a2930",
}
HAT_COLOURS = ("d93a34", "f2c12e", "3aa655", "2f6fd6", "8146c4", "e0559b", "3b3b45", "8a5a33")
FRAME_COLOURS = ("191919", "26262e", "1a2138")
LIGHT_FRAME_COLOURS = ("f4f4f4", "f5dc86", "cfe8f5")
_JITTER = 7
# Replacements in the SVG that make lines and beards stand out from skin of nearly the same colour.
_CLEARER = {
    "toon-head": [['fill="#3F2626" fill-opacity="0.5"', 'fill="#3F2626" fill-opacity="1"']],
    "pixel-art": [
        [
            'fill="#fff" fill-opacity=".3" d="M0 0h16v16H0z"',
            'fill="#000" fill-opacity=".12" d="M0 0h16v16H0z"',
        ]
    ],
}


@dataclass(frozen=True)
class Sketcher:
    """How a style draws the attributes: the names of its DiceBear options and the variants to choose from."""

    package: str  # folder below @dicebear/
    hair_colour: str = "hairColor"
    skin_colour: str = "skinColor"
    clothes_colour: str = ""
    hair: tuple[str, ...] = ()  # variants of `hair_part`
    hair_part: str = "hair"
    black_hair: tuple[str, ...] = ()  # further variants for black hair only: they ignore the colour option
    hats: tuple[str, ...] = ()  # variants of `hat_part`
    hat_part: str = ""
    glasses_part: str = ""
    bare_eyes: tuple[str, ...] = ()  # eyes without glasses, in a style that draws glasses as eyes
    glasses: tuple[str, ...] = ()
    sunglasses: tuple[str, ...] = ()
    beard_part: str = ""
    beards: tuple[str, ...] = ()
    mood_part: str = "mouth"
    moods: dict[str, tuple[str, ...]] = field(default_factory=dict)
    mood_parts: dict[str, dict[str, tuple[str, ...]]] = field(
        default_factory=dict
    )  # variants of other parts for each mood
    fixed: dict[str, Any] = field(default_factory=dict)
    free: dict[str, tuple[str, ...]] = field(default_factory=dict)  # parts without a label


SKETCHERS: dict[str, Sketcher] = {
    "flat cartoon": Sketcher(
        package="personas",
        clothes_colour="clothingColor",
        hair=("long", "shortCombover", "bobCut", "bobBangs", "pigtails", "extraLong", "shortComboverChops"),
        hat_part="hair",
        hats=("cap",),
        glasses_part="eyes",
        bare_eyes=("open",),
        glasses=("glasses",),
        sunglasses=("sunglasses",),
        beard_part="facialHair",
        beards=("goatee",),
        moods={"smile": ("bigSmile", "smile"), "sad": ("frown",), "surprised": ("surprise",)},
        fixed={"scale": 108, "translateY": 2},
        free={"body": ("squared", "rounded"), "nose": ("mediumRound", "smallRound")},
    ),
    "pixel art": Sketcher(
        package="pixel-art",
        clothes_colour="clothingColor",
        hair=(
            "long01",
            "long02",
            "long03",
            "long04",
            "long07",
            "long09",
            "long12",
            "long13",
            "long16",
            "long17",
            "long20",
            "long21",
            "short01",
            "short02",
            "short03",
            "short06",
            "short08",
            "short09",
            "short14",
            "short15",
            "short16",
            "short17",
            "short22",
        ),
        hat_part="hat",
        hats=tuple(f"variant{n:02}" for n in range(1, 11)),
        glasses_part="glasses",
        glasses=("light02", "light05", "light06"),
        sunglasses=("dark02", "dark05", "dark06"),
        beard_part="beard",
        beards=("variant01", "variant05", "variant06", "variant07", "variant08"),
        moods={"smile": ("happy09",), "sad": ("sad01",), "surprised": ("happy01",)},
        fixed={"accessoriesProbability": 0},
        free={
            "eyes": ("variant02", "variant03", "variant04", "variant05", "variant12"),
            "clothing": ("variant03", "variant04", "variant12"),
        },
    ),
    "ink sketch": Sketcher(
        package="open-peeps",
        hair_colour="headContrastColor",
        clothes_colour="clothingColor",
        hair_part="head",
        hair=("bangs", "grayBun", "grayMedium", "grayShort", "short4"),
        black_hair=(
            "afro",
            "bangs2",
            "flatTop",
            "long",
            "medium1",
            "medium3",
            "mediumStraight",
            "pomp",
            "short1",
            "short5",
            "twists2",
        ),
        hat_part="head",
        hats=("hatBeanie", "hatHip"),
        glasses_part="accessories",
        glasses=("glasses", "glasses2", "glasses3", "glasses5"),
        sunglasses=("sunglasses", "sunglasses2"),
        beard_part="facialHair",
        beards=("full",),
        mood_part="face",
        moods={"smile": ("smile", "smileBig", "calm"), "sad": ("solemn",), "surprised": ("explaining",)},
        fixed={"maskProbability": 0},
    ),
    "goofy cartoon": Sketcher(
        package="big-smile",
        hair=(
            "shortHair",
            "wavyBob",
            "bowlCutHair",
            "curlyBob",
            "straightHair",
            "shavedHead",
            "bunHair",
            "bangs",
            "curlyShortHair",
        ),
        glasses_part="accessories",
        glasses=("glasses",),
        sunglasses=("sunglasses",),
        moods={"smile": ("openedSmile", "gapSmile", "teethSmile"), "sad": ("openSad",)},
        mood_parts={"smile": {"eyes": ("normal", "cheery")}, "sad": {"eyes": ("sad", "normal")}},
        fixed={"scale": 92},
    ),
    "comic book": Sketcher(
        package="micah",
        skin_colour="baseColor",
        clothes_colour="shirtColor",
        hair=("fonze", "full", "dannyPhantom", "pixie"),
        glasses_part="glasses",
        glasses=("round", "square"),
        beard_part="facialHair",
        beards=("beard",),
        moods={"smile": ("smile", "laughing"), "sad": ("frown", "sad"), "surprised": ("surprised",)},
        fixed={"eyesColor": ["000000"]},
        free={
            "eyes": ("eyes", "round"),
            "eyebrows": ("up", "down"),
            "shirt": ("crew", "open"),
            "nose": ("curve", "pointed", "tound"),
            "ears": ("attached", "detached"),
        },
    ),
    "storybook": Sketcher(
        package="toon-head",
        clothes_colour="clothesColor",
        hair=("sideComed", "undercut", "spiky", "bun"),
        beard_part="beard",
        beards=("fullBeard", "longBeard"),
        moods={"smile": ("laugh",), "sad": ("sad",), "surprised": ("agape",)},
        mood_parts={
            "smile": {"eyes": ("happy",), "eyebrows": ("happy", "neutral")},
            "sad": {"eyes": ("happy",), "eyebrows": ("sad",)},
            "surprised": {"eyes": ("wide",), "eyebrows": ("raised", "neutral")},
        },
        free={
            "clothes": ("turtleNeck", "dress", "tShirt"),
            "rearHair": ("longStraight", "longWavy", "shoulderHigh", "neckHigh"),
        },
        fixed={"rearHairProbability": 50, "scale": 108, "translateY": 3},
    ),
    "doodle": Sketcher(
        package="adventurer",
        hair=(
            "long01",
            "long02",
            "long05",
            "long07",
            "long09",
            "long10",
            "long12",
            "long14",
            "long15",
            "long21",
            "long23",
            "short01",
            "short02",
            "short03",
            "short04",
            "short08",
            "short09",
            "short10",
            "short11",
            "short14",
            "short17",
            "short18",
        ),
        glasses_part="glasses",
        glasses=("variant02", "variant04"),
        sunglasses=("variant01",),
        moods={
            "smile": ("variant01", "variant22", "variant23", "variant26"),
            "sad": ("variant14",),
            "surprised": ("variant15",),
        },
        mood_parts={
            "smile": {"eyes": ("variant01", "variant02", "variant03", "variant26")},
            "sad": {"eyes": ("variant15",)},
            "surprised": {"eyes": ("variant01", "variant03", "variant26")},
        },
        fixed={"featuresProbability": 0, "earringsProbability": 20, "scale": 118},
        free={"eyebrows": ("variant10", "variant08", "variant11")},
    ),
    "line art": Sketcher(
        package="lorelei",
        hair=(
            "variant02",
            "variant03",
            "variant04",
            "variant05",
            "variant06",
            "variant07",
            "variant08",
            "variant09",
            "variant10",
            "variant11",
            "variant12",
            "variant13",
            "variant15",
            "variant18",
            "variant19",
            "variant22",
            "variant23",
            "variant24",
            "variant30",
            "variant32",
            "variant35",
            "variant39",
            "variant42",
            "variant48",
        ),
        glasses_part="glasses",
        glasses=("variant01", "variant03", "variant04"),
        sunglasses=("variant02",),
        beard_part="beard",
        beards=("variant01", "variant02"),
        moods={
            "smile": ("happy01", "happy02", "happy05", "happy06"),
            "sad": ("sad04", "sad05"),
            "surprised": ("sad01",),
        },
        mood_parts={
            "sad": {"eyebrows": ("variant01",)},
            "smile": {"eyebrows": ("variant02", "variant05")},
            "surprised": {"eyebrows": ("variant02", "variant09")},
        },
        fixed={
            "frecklesProbability": 0,
            "earringsProbability": 20,
            "hairAccessoriesProbability": 0,
            "scale": 118,
        },
        free={
            "eyes": ("variant02", "variant04", "variant10", "variant14", "variant24"),
            "head": ("variant03", "variant04"),
        },
    ),
}

HEAD_IN_HAIR = frozenset(("open-peeps", "lorelei"))
INK_VIOLET = "8000ff"  # a colour that no hair has


def hair_colour_option(package: str, colour: str) -> dict[str, list[str]]:
    """Return the DiceBear option that sets the hair colour in the style of `package`."""
    for sketcher in SKETCHERS.values():
        if sketcher.package == package:
            return {sketcher.hair_colour: [colour]}
    raise KeyError(package)


def _shade(colour: str, rng: np.random.Generator) -> str:
    """Change every channel of a colour at random, by at most ``_JITTER``."""
    channels = (int(colour[i : i + 2], 16) for i in (0, 2, 4))
    return "".join(f"{min(255, max(0, c + int(rng.integers(-_JITTER, _JITTER + 1)))):02x}" for c in channels)


def _luma(colour: str) -> float:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (0, 2, 4))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def options_for(
    labels: Labels | Sequence[int] | np.ndarray, seed: str, *, without: str = ""
) -> dict[str, Any]:
    """Return what avatars.mjs needs to draw an avatar: style package, DiceBear options, background, patches.

    The same labels and seed give the same result. ``without`` ("glasses", "hat", "beard", "hair") leaves
    that part out and changes nothing else, because every random choice is made before the part is dropped.
    """
    known = to_dict(labels)
    names = {name: value_name(name, index) for name, index in known.items()}
    sketcher = SKETCHERS[names["style"]]
    rng = generator(seed, "drawing")
    options: dict[str, Any] = {"seed": seed}
    patches: list[list[str]] = []

    hair_name = names["hair"] if known["hair"] != HIDDEN else _pick(rng, tuple(HAIR))
    hair = _shade(HAIR[hair_name], rng)
    skin = _shade(SKIN[names["skin"]], rng)
    background = _shade(BACKGROUND[names["background"]], rng)
    clothes = _shade(CLOTHES[names["clothes"]] if known["clothes"] != HIDDEN else "ffffff", rng)
    hat_colour = _shade(_pick(rng, HAT_COLOURS), rng)
    frames = _pick(rng, FRAME_COLOURS)
    light_frames = _pick(rng, LIGHT_FRAME_COLOURS)
    if sketcher.package == "micah" and names["skin"] == "dark":  # micah draws frames as thin lines
        frames = light_frames
    options |= {sketcher.hair_colour: [hair], sketcher.skin_colour: [skin]}
    if sketcher.clothes_colour:
        options[sketcher.clothes_colour] = [clothes]

    for part, variants in sketcher.free.items():
        options[part] = [_pick(rng, variants)]
    options[sketcher.mood_part] = [_pick(rng, sketcher.moods[names["mood"]])]
    for part, variants in sketcher.mood_parts.get(names["mood"], {}).items():
        options[part] = [_pick(rng, variants)]

    shapes = sketcher.hair + (sketcher.black_hair if hair_name == "black" else ())
    options[sketcher.hair_part] = [_pick(rng, shapes)]
    hat = _pick(rng, sketcher.hats) if sketcher.hats else ""
    glasses = _pick(rng, sketcher.glasses) if sketcher.glasses else ""
    sunglasses = _pick(rng, sketcher.sunglasses) if sketcher.sunglasses else ""
    beard = _pick(rng, sketcher.beards) if sketcher.beards else ""
    bare_eyes = _pick(rng, sketcher.bare_eyes) if sketcher.bare_eyes else ""

    _put_on_hat(options, sketcher, names, hat, hat_colour, patches, without)
    _put_on_glasses(options, sketcher, names, (bare_eyes, glasses, sunglasses), frames, patches, without)
    has_beard = names["beard"] == "beard"
    if sketcher.beards:
        options[f"{sketcher.beard_part}Probability"] = 100 if has_beard and without != "beard" else 0
        options[sketcher.beard_part] = [beard]
    _colour_lines(options, sketcher, hair, has_beard)
    patches += _CLEARER.get(sketcher.package, [])
    if without == "hair":
        _shave(options, sketcher)
    return {
        "style": sketcher.package,
        "options": options | sketcher.fixed,
        "background": background,
        "patches": patches,
    }


def _put_on_hat(
    options: dict[str, Any],
    sketcher: Sketcher,
    names: dict[str, str],
    hat: str,
    colour: str,
    patches: list[list[str]],
    without: str,
) -> None:
    """Set the hat options. If the style draws hats as hair, an avatar is bald without its hat."""
    wearing = names["hat"] == "hat"
    if sketcher.package == "pixel-art":
        options |= {
            "hatProbability": 100 if wearing and without != "hat" else 0,
            "hat": [hat],
            "hatColor": [colour],
        }
        if wearing:
            options["hair"] = ["short01"]
    elif wearing:
        options[sketcher.hat_part] = [hat]
        if sketcher.package == "personas":  # the cap has a fixed colour
            patches.append(["#F29C65", f"#{colour}"])
        if without == "hat":
            _shave(options, sketcher)


def _put_on_glasses(
    options: dict[str, Any],
    sketcher: Sketcher,
    names: dict[str, str],
    choice: tuple[str, str, str],
    frames: str,
    patches: list[list[str]],
    without: str,
) -> None:
    bare, glasses, sunglasses = choice
    kind = "none" if without == "glasses" else names["glasses"]
    if not sketcher.glasses_part:
        return
    if sketcher.bare_eyes:
        options["eyes"] = [{"none": bare, "glasses": glasses, "sunglasses": sunglasses}[kind]]
        return
    part = sketcher.glasses_part
    options |= {
        f"{part}Probability": 0 if kind == "none" else 100,
        part: [sunglasses if names["glasses"] == "sunglasses" else glasses],
    }
    if sketcher.package in ("pixel-art", "micah", "lorelei"):
        options["glassesColor"] = [frames]
    if sketcher.package == "pixel-art" and kind == "sunglasses":  # the dark lenses are nearly clear
        patches.append(['fill="#000" fill-opacity=".3"', 'fill="#000" fill-opacity=".8"'])


def _colour_lines(options: dict[str, Any], sketcher: Sketcher, hair: str, has_beard: bool) -> None:
    """Set a mouth colour that stands out from skin or beard; comic-book beards get the hair colour."""
    on_dark_beard = has_beard and _luma(hair) < 110
    if sketcher.package == "pixel-art":
        options["mouthColor"] = ["ffd9c9" if on_dark_beard else "7d1420"]
    elif sketcher.package == "micah":
        options |= {"facialHairColor": [hair], "mouthColor": ["ffffff" if on_dark_beard else "000000"]}
    elif sketcher.package == "lorelei":
        options["mouthColor"] = ["ffffff" if on_dark_beard else "000000"]


def _shave(options: dict[str, Any], sketcher: Sketcher) -> None:
    """Remove the hair: use a bald variant if the style has one, else no hair part at all."""
    bald = {"personas": "bald", "open-peeps": "noHair1", "micah": "mrClean"}.get(sketcher.package)
    if bald:
        options[sketcher.hair_part] = [bald]
    else:
        options |= {"hair": [], "rearHair": [], "hairProbability": 0, "rearHairProbability": 0}
