"""Read a trace: which features were active in a sampling run, where, and at which step.

python -m scripts.read_trace [trace file, written by Save Trace]
"""

import sys
import tempfile
from pathlib import Path

import torch

from comfy_revelio import Trace, load_dictionary
from comfy_revelio.trace import Frame, RunRecorder

BUNDLED = Path(__file__).parents[1] / "sae_weights" / "revelio_mini_middle.safetensors"


def make_trace(path: Path, steps: int = 4) -> None:
    """Write a trace as Record Features would, of made-up activations where feature 522 grows at each step."""
    sae, noise = load_dictionary(BUNDLED), torch.Generator().manual_seed(0)
    recorder = RunRecorder(steps, sigmas=[8.0, 4.0, 2.0, 1.0, 0.0])
    for step, sigma in enumerate(recorder.sigmas[:steps]):
        tokens = torch.randn(1, 8 * 8, sae.d_model, generator=noise)
        tokens[0, 20] += 20.0 * step * sae.directions([522])[0]
        codes = sae.encode(tokens)
        recorder.add(Frame(sae.hook_point, step, 0, sigma, 900 - 200 * step, "cond", (8, 8), codes))
    recorder.finish({sae.hook_point: sae}).save(path)


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "run.safetensors"
    if not file.exists():
        make_trace(file)
    trace = Trace.load(file)
    for hook_point in trace.hook_points:
        for score in trace.top_features(hook_point, 3, by="distinct"):
            maps = trace.feature_map(hook_point, score.feature)  # [steps, height, width]
            strongest = ", ".join(f"{value:.1f}" for value in maps.amax((1, 2)))
            print(f"{hook_point}, feature {score.feature}: strongest value at each step {strongest}")
