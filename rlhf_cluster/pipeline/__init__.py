"""Pipelines: stages that are jobs, fed by the outputs of earlier ones; only what has changed runs again. No torch."""
