"""Layer 6: live patching: model, patch sites, stack check, transition and engines; pure, without input and output."""
