"""Surefoot: reliable stack traces and live patching for arm64 Linux kernels."""

__version__ = "0.1.0"
