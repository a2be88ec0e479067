"""Text encoders: tap their layers, find a prompt's tokens and words, steer concepts in conditionings."""
