"""Read checkpoints of torch.save and pickles of tensors without running any code in them.

Threat model. A dictionary file comes from a stranger, and a pickle is a program: Python's own
unpickler calls whatever the program names. A file may therefore try to run code, to fill the memory,
to keep the processor busy forever, or to pass off damaged numbers as sound ones. This package ensures:

- no code runs: names remain text, and the dozen calls that torch writes are carried out by our own
  functions (`machine`, `calls`);
- memory stays within the size of the file, at most 4 GB, or for a gzip file within the larger of 512 MB and
  four times its size: every length is checked against the rest of the file before that much is read, and no
  tensor is read before the whole pickle has been checked (`reader`, `zip_entries`);
- apart from reading the file, time stays within a few seconds: at most a million opcodes and values are
  allowed, and no dict keys whose hashes could be crafted to collide or to take forever;
- the checksums of zip and gzip files are verified.

`torch.load(weights_only=True)` runs no code either, but ensures none of the other points; docs/decisions.md
has the measurements. Other packages need only `read_pickle` and `Stub`.
"""

from .reader import read_pickle
from .values import Stub

__all__ = ["Stub", "read_pickle"]
