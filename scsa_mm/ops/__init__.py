"""The arithmetic of the attention modules, as functions of tensors. Imports torch only."""
