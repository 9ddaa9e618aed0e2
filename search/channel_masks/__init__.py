"""The choice of a block's channels: which k of c units to keep, by the Gram matrix of their contributions."""
