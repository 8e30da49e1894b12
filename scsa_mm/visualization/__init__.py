"""Pictures of a run: :mod:`.curves` of its loss and accuracy, :mod:`.predictions` beside the ground truth."""
