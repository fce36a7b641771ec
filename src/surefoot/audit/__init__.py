"""Layer 6: what is missing, wrong or unproven in an image's unwind metadata, and who repairs it. Pure."""
