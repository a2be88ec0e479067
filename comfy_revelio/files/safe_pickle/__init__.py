"""Checkpoints of torch.save and pickles of tensors, read without running anything in them.

Threat model. A dictionary file comes from a stranger, and a pickle is a program: Python's own
unpickler calls whatever the program names. A file may therefore try to run code, to fill the memory,
to keep the processor busy forever, or to pass off damaged numbers as sound ones. Here

- no code runs: names stay words, and the dozen calls that torch writes are carried out by our own
  functions (`machine`, `calls`);
- memory stays within the size of the file, at most 4 GB, and of a gzip within four times its size or
  512 MB: every length is checked against what is left of the file before it is read, and nothing of a
  tensor is read before all of the pickle was checked (`reader`, `zip_entries`);
- time stays within a few seconds besides the reading: at most a million opcodes and values, and no keys
  of tables whose hashes can be made to collide or never end;
- the checksums of a zip and of a gzip are compared.

`torch.load(weights_only=True)` runs no code either, but keeps none of the other bounds; docs/decisions.md
has what was measured. From the outside only `read_pickle` and `Stub` are of interest.
"""

from .reader import read_pickle
from .values import Stub

__all__ = ["Stub", "read_pickle"]
